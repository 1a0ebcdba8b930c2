"""The loss-spike policy of a config."""

from ml_collections import ConfigDict

from nlip_jax.config import Clock
from nlip_jax.errors import UsageError
from nlip_jax.train.spikes import SpikePolicy

# config.spikes.action -> whether the update is left out; "off": nobody looks for spikes.
ACTIONS = {"off": None, "record": False, "skip": True}


def make_spike_policy(config: ConfigDict, *, clock: Clock) -> SpikePolicy | None:
    """What counts as a spike, and what becomes of it; None where nobody looks for them."""
    spikes = config.spikes
    if spikes.action not in ACTIONS:
        raise UsageError(
            f"config.spikes.action={spikes.action!r}: choose one of {', '.join(ACTIONS)}"
        )
    window = clock.steps(spikes.window, field="spikes.window")
    if window < 2:
        raise UsageError(
            f"config.spikes.window={spikes.window!r} is {window} steps: a deviation needs 2 or more"
        )
    skips = ACTIONS[spikes.action]
    if skips is None:
        return None
    return SpikePolicy(
        skips=skips, z_score=spikes.z_score, window=window, max_skipped=spikes.max_skipped
    )
