"""The few types that travel through the whole house.

Letters of shapes: b batch, n examples, l tokens, p image tokens, d embedding, k candidates,
h w c pixels. `b` is the global batch on every mesh.
"""

from typing import Any, TypedDict

import flax.struct
import jax

Array = jax.Array
PyTree = Any


class Batch(TypedDict, total=False):
    """What the pipeline hands to a step; columns a method asked for stand beside these."""

    image: Array  # [b, h, w, 3] uint8, scaled to [-1, 1] on the device
    tokens: Array  # [b, l] int32, 0 is padding
    example_id: Array  # [b] int64 on hosts; does not travel to the devices
    valid: Array  # [b] bool, False on rows that only fill up a batch
    row: Array  # [b] int32, place in the global batch, added by the step: random numbers hang on it
    image_id: Array  # [b] int32, number of the image in its data set, for methods that ask for it
    noise_prob: Array  # [b] float32, column of the method nlip
    concept_tokens: Array  # [b, c] int32, tokens of retrieved concepts; 0 is padding
    synthetic_tokens: Array  # [b, l] int32, a caption that a model made; all 0 where there is none
    match: Array  # [b, 2] float32, probabilities that own and synthetic text do not match the image


@flax.struct.dataclass
class LossOutput:
    """What a part of the loss gives back.

    Attributes:
      loss: () float32.
      metrics: scalars to log.
      carry: what `update_state` wants from this step.
      picks: what `example_loss` wants, such as hard negatives.
    """

    loss: Array
    metrics: dict[str, Array] = flax.struct.field(default_factory=dict)
    carry: PyTree = None
    picks: PyTree = None


@flax.struct.dataclass
class TrainState:
    """Everything a run needs to go on, as one pytree of sharded arrays.

    Attributes:
      step: () int32, number of updates done.
      episode: () int32, number of refreshes done.
      params: float32 parameters.
      model_state: batch statistics and the like; empty for models without.
      opt_state: of the optax transformation.
      method_state: what the method remembers on the devices.
      ema_params: moving average of the parameters, float32; None where none is kept.
      loss_watch: mean and deviation of the losses so far; None where no spikes are looked for.
    """

    step: Array
    episode: Array
    params: PyTree
    model_state: PyTree
    opt_state: PyTree
    method_state: PyTree
    ema_params: PyTree = None
    loss_watch: PyTree = None
