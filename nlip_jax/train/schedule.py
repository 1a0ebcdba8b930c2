"""Learning rates over the steps of a run."""

import optax

from nlip_jax.errors import UsageError

Schedule = optax.Schedule  # step -> learning rate

# Schedules whose value at a step does not depend on how long the run is: those may be prolonged.
OPEN_ENDED = ("constant", "rsqrt")


def make_schedule(
    *, name: str, peak: float, warmup: int, total: int, end: float = 0.0, timescale: int = 10_000
) -> Schedule:
    """A linear warm-up to the peak, then the named decay.

    Args:
      name: constant | cosine | linear | rsqrt.
      peak: learning rate after the warm-up.
      warmup: steps of the warm-up.
      total: steps of the run (cosine, linear).
      end: final value as a share of the peak (cosine, linear).
      timescale: steps after which rsqrt has fallen to 1/sqrt(2).

    Raises:
      UsageError: unknown name, a warm-up longer than the run, or no timescale.
    """
    if warmup > total:
        raise UsageError(
            f"config.schedule.warmup lasts {warmup} steps, longer than the run of {total}"
        )
    if timescale < 1:
        raise UsageError(f"config.schedule.timescale is {timescale} steps: must be 1 or more")
    rest = max(1, total - warmup)
    decays = {
        "constant": lambda: optax.constant_schedule(peak),
        "cosine": lambda: optax.cosine_decay_schedule(peak, rest, alpha=end),
        "linear": lambda: optax.linear_schedule(peak, peak * end, rest),
        "rsqrt": lambda: lambda step: peak * (1.0 + step / timescale) ** -0.5,
    }
    if name not in decays:
        raise UsageError(f"config.schedule.name={name!r}: choose one of {', '.join(decays)}")
    decay = decays[name]()
    if not warmup:
        return decay
    # The first update already moves: step 0 gets peak / warmup.
    rise = optax.linear_schedule(peak / warmup, peak, max(1, warmup - 1))
    return optax.join_schedules([rise, decay], [warmup])
