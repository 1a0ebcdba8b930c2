"""From the features of two towers to the sides of a contrastive loss."""

import dataclasses
from collections.abc import Callable

from nlip_jax.losses import similarity
from nlip_jax.losses.sides import Side
from nlip_jax.losses.similarity import Similarity
from nlip_jax.methods.base import Features
from nlip_jax.types import Array


@dataclasses.dataclass(frozen=True, kw_only=True)
class FeatureSimilarity:
    """How images and texts are compared.

    Attributes:
      images: the images' side, from their features.
      texts: the texts' side, from their features.
      compare: the similarity of two sides' features and masks.
      uses_tokens: whether every token takes part, rather than one embedding of all.
    """

    images: Callable[[Features], Side]
    texts: Callable[[Features], Side]
    compare: Callable[..., Similarity]
    uses_tokens: bool

    def score(self, images: Features, texts: Features) -> Similarity:
        """All images against all texts, `[images, texts]` both ways, without a temperature."""
        rows, columns = self.images(images), self.texts(texts)
        return self.compare(rows.features, columns.features, rows.mask, columns.mask)

    def score_pairs(self, images: Features, texts: Features) -> Array:
        """Image i against text i, the mean of both ways, `[b]`, without a temperature."""
        rows, columns = self.images(images), self.texts(texts)
        found = similarity.aligned(
            self.compare, rows.features, columns.features, rows.mask, columns.mask
        )
        return (found.per_row + found.per_column) / 2


# Cosine of the pooled embeddings (CLIP).
DOT = FeatureSimilarity(
    images=lambda features: Side(features["image_embed"]),
    texts=lambda features: Side(features["text_embed"]),
    compare=similarity.dot,
    uses_tokens=False,
)

# Mean over tokens of the best match among the other side's tokens (FILIP).
TOKEN_MAX = FeatureSimilarity(
    images=lambda features: Side(features["image_tokens"]),
    texts=lambda features: Side(features["text_tokens"], mask=features["text_mask"]),
    compare=similarity.token_max,
    uses_tokens=True,
)

SIMILARITIES = {"dot": DOT, "token_max": TOKEN_MAX}
