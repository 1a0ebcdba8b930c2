"""Loss spikes: found inside the compiled step, which leaves such an update out if asked to.

The watch holds an exponentially weighted mean and variance of the loss (Finch, "Incremental
calculation of weighted mean and variance", 2009), weighted so that the first losses count in full
(Adam's bias correction). A loss far above the mean, or one that is not finite, is a spike.
"""

import dataclasses
import math

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np

from nlip_jax.types import Array, PyTree, TrainState


@dataclasses.dataclass(frozen=True, kw_only=True)
class SpikePolicy:
    """What counts as a spike, and what becomes of it.

    Attributes:
      skips: leave the update out; False only records it.
      z_score: deviations above the mean that make a spike.
      window: steps that mean and deviation look back on, at least 2; no z-score before its end.
      max_skipped: updates in a row that may be left out.
    """

    skips: bool
    z_score: float
    window: int
    max_skipped: int


@flax.struct.dataclass
class LossWatch:
    """What the losses so far were like; a part of the state.

    Attributes:
      mean: () float32.
      variance: () float32.
      count: () int32, losses that were taken in.
      skipped: () int32, updates that were left out in all.
      in_a_row: () int32, updates that were left out just now, one after another.
    """

    mean: Array
    variance: Array
    count: Array
    skipped: Array
    in_a_row: Array


def new_watch() -> LossWatch:
    """A watch that has seen nothing."""
    zero, none = jnp.zeros((), jnp.float32), jnp.zeros((), jnp.int32)
    return LossWatch(mean=zero, variance=zero, count=none, skipped=none, in_a_row=none)


def forget(watch: PyTree) -> PyTree:
    """The watch at the start of an episode, whose losses mean something else; None stays None."""
    if watch is None:
        return None
    empty = jax.tree.map(lambda a: jax.device_put(np.zeros((), a.dtype), a.sharding), watch)
    return empty.replace(skipped=watch.skipped)


def num_updates(state: TrainState) -> Array:
    """Updates done, which schedules and moments count: steps less those that were left out."""
    return state.step if state.loss_watch is None else state.step - state.loss_watch.skipped


def guard(
    before: TrainState,
    after: TrainState,
    *,
    loss: Array,
    grad_norm: Array,
    policy: SpikePolicy,
) -> tuple[TrainState, dict[str, Array]]:
    """Judges a step, and takes its update back if it is a spike that shall be skipped.

    Args:
      before: the state before the update.
      after: the state after it.
      loss: () of this step.
      grad_norm: () of this step.
      policy: what is a spike.

    Returns:
      The state to go on with, its watch moved on by this loss, and scalars for `SpikeLog`.
    """
    watch = before.loss_watch
    deviation = jnp.sqrt(watch.variance)
    z = _z_score(watch, deviation, loss, window=policy.window)
    is_finite = jnp.isfinite(loss) & jnp.isfinite(grad_norm)
    is_spike = (z > policy.z_score) | ~is_finite
    metrics = {
        "loss_mean": watch.mean,
        "loss_deviation": deviation,
        "loss_z": z,
        "spike": is_spike.astype(jnp.float32),
    }
    if not policy.skips:
        # A spike moves the watch only as far as the border, lest it hide the ones that follow; yet
        # a loss that stays up becomes the new normal.
        border = watch.mean + policy.z_score * deviation
        seen = jnp.where(watch.count >= policy.window, jnp.minimum(loss, border), loss)
        return after.replace(loss_watch=_take_in(watch, seen, window=policy.window)), metrics
    watch = jax.tree.map(
        lambda old, new: jnp.where(is_spike, old, new),
        watch.replace(skipped=watch.skipped + 1, in_a_row=watch.in_a_row + 1),
        _take_in(watch, loss, window=policy.window),
    )
    kept = before.replace(step=after.step)
    # Selecting takes no time that could be measured: XLA fuses it into the update, which reads both
    # anyway.
    state = jax.tree.map(lambda old, new: jnp.where(is_spike, old, new), kept, after)
    metrics |= {"skipped": watch.skipped, "skipped_in_a_row": watch.in_a_row}
    return state.replace(loss_watch=watch), metrics


def _z_score(watch: LossWatch, deviation: Array, loss: Array, *, window: int) -> Array:
    """Deviations above the mean; 0 before the end of the window."""
    # Losses that are all the same have a deviation of 0: then differences count in roundings.
    limits = jnp.finfo(jnp.float32)
    least = jnp.maximum(limits.eps * jnp.abs(watch.mean), limits.tiny)
    z = (loss.astype(jnp.float32) - watch.mean) / jnp.maximum(deviation, least)
    return jnp.where(watch.count >= window, z, 0.0)


def _take_in(watch: LossWatch, loss: Array, *, window: int) -> LossWatch:
    """The watch after one more loss, which ends any row of skipped steps."""
    count = watch.count + 1
    # (1 - decay) / (1 - decay ** count), with decay = 1 - 1 / window.
    rate = -1 / (window * jnp.expm1(count * math.log1p(-1 / window)))
    rate = jnp.where(count == 1, 1.0, rate)  # without rounding: what there was before counts 0
    step = rate * (loss.astype(jnp.float32) - watch.mean)
    return watch.replace(
        mean=watch.mean + step,
        variance=(1 - rate) * (watch.variance + step * (loss - watch.mean)),
        count=count,
        in_a_row=jnp.zeros_like(watch.in_a_row),
    )
