"""ALIGN's loss: label smoothing in both softmaxes, and their sum (Jia et al., ICML 2021)."""

import dataclasses
import functools

from nlip_jax.losses import targets
from nlip_jax.losses.targets import Targets
from nlip_jax.methods.base import Features
from nlip_jax.methods.clip import Clip
from nlip_jax.types import Array, Batch, LossOutput, PyTree, TrainState


@dataclasses.dataclass(frozen=True, kw_only=True)
class Align(Clip):
    """Image-text contrast with smoothed one-hot targets.

    Attributes:
      label_smoothing: share of a target that goes to all candidates alike, the own among them.
    """

    label_smoothing: float = 0.1

    def targets(self, batch: Batch) -> Targets:
        """One-hot targets, smoothed by the same share everywhere."""
        del batch
        return functools.partial(targets.label_smoothed, share=self.label_smoothing)

    def pair_loss(
        self, params: PyTree, features: Features, state: TrainState, batch: Batch
    ) -> LossOutput:
        """The sum of both directions, as published; CLIP takes their mean."""
        output = super().pair_loss(params, features, state, batch)
        return output.replace(loss=2.0 * output.loss)

    def pair_losses(self, params: PyTree, state: TrainState, batch: Batch) -> Array:
        """The loss of each pair among its batch, [b]."""
        return 2.0 * super().pair_losses(params, state, batch)
