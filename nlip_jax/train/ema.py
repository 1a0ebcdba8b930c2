"""An exponential moving average of the parameters, often better than the last of them."""

import jax
import jax.numpy as jnp

from nlip_jax.types import Array, PyTree, TrainState


def update(average: PyTree, params: PyTree, *, num_updates: Array, decay: float) -> PyTree:
    """The average after an update of the parameters.

    Args:
      average: before it; None where none is kept.
      params: after it.
      num_updates: () int32, number of updates before it.
      decay: weight of the past, smaller at the start: min(decay, (1 + n) / (10 + n)) after n
        updates, as of TensorFlow's `ExponentialMovingAverage` with `num_updates`, so that the
        average soon forgets the random start.

    Returns:
      As the average, float32.
    """
    if average is None:
        return None
    done = num_updates.astype(jnp.float32)
    # What is left of 1, and not 1 minus what is rounded: of 0.999999 float32 would lose 1 %.
    rate = jnp.maximum(1.0 - decay, 9.0 / (10.0 + done))
    # As a step towards the parameters: exact where they stand still.
    return jax.tree.map(lambda past, now: past + rate * (now - past), average, params)


def with_average(state: TrainState) -> TrainState:
    """The state with the average in place of the parameters, where one is kept."""
    return state if state.ema_params is None else state.replace(params=state.ema_params)
