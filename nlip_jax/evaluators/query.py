"""Search with an image, a text, or an image and a text together.

Two parts become one query by the arithmetic of embeddings (ALIGN, arXiv 2102.05918, section 7):
"panda" is added to a picture of a dog, and with a negative weight taken away from it.
"""

import dataclasses
import math

import numpy as np

from nlip_jax.errors import UsageError
from nlip_jax.evaluators.base import Towers
from nlip_jax.evaluators.search import Found, cosine, search
from nlip_jax.methods.base import Features
from nlip_jax.methods.similarities import FeatureSimilarity
from nlip_jax.types import Array

_LEAST = 1e-6  # length below which nothing but rounding is left of a query


@dataclasses.dataclass(frozen=True)
class ImagesToImages:
    """Scores images as an image sees them."""

    similarity: FeatureSimilarity

    def __call__(self, queries: Features, candidates: Features) -> Array:
        """Images `[q, ...]` and images `[c, ...]` -> `[q, c]`."""
        rows, columns = self.similarity.images(queries), self.similarity.images(candidates)
        return self.similarity.compare(
            rows.features, columns.features, rows.mask, columns.mask
        ).per_row


def combine(
    image: np.ndarray, text: np.ndarray, *, image_weight: float, text_weight: float
) -> np.ndarray:
    """One query of an image and a text: `image_weight * image + text_weight * text`, normalised.

    Both are normalised before, so the weights alone say how much each of them counts.

    Args:
      image: `[..., d]` float embeddings, not zero.
      text: `[..., d]` likewise.
      image_weight: of the image; below 0 it is taken away.
      text_weight: of the text; likewise.

    Returns:
      `[..., d]` float32 of length 1.

    Raises:
      UsageError: weights that are not finite, both 0, or such that nothing is left.
    """
    check_weights(image_weight=image_weight, text_weight=text_weight)
    total = image_weight * _normalize(image) + text_weight * _normalize(text)
    length = np.linalg.norm(total, axis=-1, keepdims=True)
    if length.min() < _LEAST * max(abs(image_weight), abs(text_weight)):
        raise UsageError(
            f"image_weight={image_weight:g} and text_weight={text_weight:g} leave nothing of this "
            "image and this text: they cancel out; choose other weights"
        )
    return (total / length).astype(np.float32)


def check_weights(*, image_weight: float, text_weight: float) -> None:
    """Refuses weights that make no query.

    Raises:
      UsageError: they are not finite, or both 0.
    """
    if not (math.isfinite(image_weight) and math.isfinite(text_weight)):
        raise UsageError(
            f"image_weight={image_weight:g}, text_weight={text_weight:g}: must be finite numbers"
        )
    if image_weight == text_weight == 0:
        raise UsageError("image_weight=0 and text_weight=0: one of them must not be 0")


def find_images(
    towers: Towers,
    images: Features,
    *,
    image: Features | None = None,
    text: Features | None = None,
    image_weight: float = 1.0,
    text_weight: float = 1.0,
    top: int,
) -> Found:
    """The images that are most similar to every query.

    A query that is an image alone finds itself first, where it is among the images.

    Args:
      towers: the model.
      images: features of the images that are searched, `[c, ...]`; NaN where one has none.
      image: features of the queries' images, `[q, ...]`; None without.
      text: features of the queries' texts, `[q, ...]`; None without.
      image_weight: of the image in a query of both.
      text_weight: of the text in a query of both.
      top: how many are wanted.

    Returns:
      The best of each query, with their scores: cosines in [-1, 1], or token-wise similarities.

    Raises:
      UsageError: no query, weights that make none, or arithmetic with a token-wise similarity.
    """
    if image is None and text is None:
        raise UsageError("there is nothing to search with: give an image, a text, or both")
    if image is None:
        return towers.search_images(text, images, top=top)
    if text is None:
        needed = (towers.needed(image), towers.needed(images))
        score = ImagesToImages(towers.similarity)
        return search(*needed, score=score, mesh=towers.mesh, top=top)
    check_arithmetic(towers.similarity)
    query = combine(
        image["image_embed"],
        text["text_embed"],
        image_weight=image_weight,
        text_weight=text_weight,
    )
    return search(
        {"x": query}, {"x": images["image_embed"]}, score=cosine, mesh=towers.mesh, top=top
    )


def check_arithmetic(similarity: FeatureSimilarity) -> None:
    """Refuses to add tokens up.

    Raises:
      UsageError: the similarity compares tokens, so an image and a text have no sum.
    """
    if similarity.uses_tokens:
        raise UsageError(
            "this model compares images and texts token by token, so that an image and a text have "
            "no sum: search with one of them"
        )


def _normalize(values: np.ndarray) -> np.ndarray:
    values = np.asarray(values, np.float64)
    return values / np.linalg.norm(values, axis=-1, keepdims=True)
