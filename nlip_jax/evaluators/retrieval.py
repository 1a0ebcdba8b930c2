"""Image-text retrieval: find the captions of an image among all captions, and the other way."""

import dataclasses

import numpy as np

from nlip_jax.data.source import Source
from nlip_jax.evaluators.base import Towers

CUTS = (1, 5, 10)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Retrieval:
    """One captioned set; an image may have several captions.

    Attributes:
      source: its images and captions.
    """

    source: Source

    def run(self, towers: Towers) -> dict[str, float]:
        """recall@1/5/10 and median rank both ways, and the mean of the six recalls."""
        owners = np.array([self.source.image_id(i) for i in range(len(self.source))])
        similarity = towers.score(
            towers.embed_images(self.source), towers.embed_captions(self.source)
        )
        images = np.arange(self.source.num_images)
        results = {}
        for direction, scores, is_right in (
            ("image_to_text", similarity.per_row, images[:, None] == owners[None]),
            ("text_to_image", similarity.per_column.T, owners[:, None] == images[None]),
        ):
            rank = ranks(scores, is_right)
            results |= {f"{direction}/recall@{k}": float((rank < k).mean()) for k in CUTS}
            results[f"{direction}/median_rank"] = float(np.median(rank) + 1)
        recalls = [value for name, value in results.items() if "recall@" in name]
        return results | {"mean_recall": float(np.mean(recalls))}


def ranks(scores: np.ndarray, is_right: np.ndarray) -> np.ndarray:
    """Place of the best right candidate of each query, from 0.

    A wrong candidate with the same score comes first: features that collapse to one point earn
    nothing. NaN is no score: it is neither right nor before another that is.

    Args:
      scores: [queries, candidates].
      is_right: [queries, candidates] bool.

    Returns:
      [queries]; the number of candidates where a query has no right one.
    """
    best = np.fmax.reduce(np.where(is_right, scores, -np.inf), axis=1, keepdims=True)
    rank = (((scores >= best) | (best == -np.inf)) & ~is_right).sum(1)
    return np.where(is_right.any(1), rank, scores.shape[1])
