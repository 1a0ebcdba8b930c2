"""CLIP: two towers and a softmax over all pairs of the global batch (Radford et al., 2021).

Also the base of every method on two towers: they choose other targets, or add terms.
"""

import dataclasses
from collections.abc import Callable

from nlip_jax.losses import targets
from nlip_jax.losses.contrastive import softmax_contrastive
from nlip_jax.losses.similarity import Logits
from nlip_jax.methods.base import Features, Method, scale_image
from nlip_jax.types import Array, Batch, LossOutput, PyTree, TrainState


@dataclasses.dataclass(frozen=True, kw_only=True)
class Clip(Method):
    """Image-text contrast with one-hot targets.

    Attributes:
      similarity: (image features, text features, logit_scale) -> `Logits`.
    """

    similarity: Callable[[Features, Features, Array], Logits]

    def image_features(self, params: PyTree, image: Array) -> Features:
        """Features of images alone, for evaluation: [b, h, w, 3] uint8."""
        return self.model.apply({"params": params}, scale_image(image), method="encode_image")

    def text_features(self, params: PyTree, tokens: Array) -> Features:
        """Features of texts alone, for evaluation: [b, l] int32."""
        return self.model.apply({"params": params}, tokens, method="encode_text")

    def targets(self, batch: Batch) -> Callable:
        """The targets of this batch, as a function of row statistics."""
        del batch
        return targets.identity

    def pair_loss(
        self, params: PyTree, features: Features, state: TrainState, batch: Batch
    ) -> LossOutput:
        """Softmax contrast of the global batch, both directions."""
        del params, state
        scale = features["logit_scale"]
        output = softmax_contrastive(
            self.similarity(features, features, scale), targets=self.targets(batch)
        )
        return LossOutput(loss=output.loss, metrics={"logit_scale": scale})
