"""Zero-shot classification: the class whose prompts lie nearest to the image."""

import dataclasses

import numpy as np

from nlip_jax.data.source import Source
from nlip_jax.errors import UsageError
from nlip_jax.evaluators.base import Towers

ENSEMBLES = ("embeddings", "similarities", "none")


@dataclasses.dataclass(frozen=True, kw_only=True)
class ZeroShot:
    """One labelled set.

    Attributes:
      source: its images.
      labels: [num_images] index into `class_names`.
      class_names: of the classes.
      templates: prompts with `{}` where the name goes.
      ensemble: how several prompts of a class become one: the mean of embeddings, normalised
        again (CLIP; needs a similarity of pooled embeddings); the mean of similarities (FILIP);
        or "none", the first template alone.
    """

    source: Source
    labels: np.ndarray
    class_names: tuple[str, ...]
    templates: tuple[str, ...]
    ensemble: str = "embeddings"

    def __post_init__(self):
        if self.ensemble not in ENSEMBLES:
            raise UsageError(f"ensemble={self.ensemble!r}: choose one of {', '.join(ENSEMBLES)}")

    def run(self, towers: Towers) -> dict[str, float]:
        """top1, top5 and mean_per_class, as shares."""
        templates = self.templates[:1] if self.ensemble == "none" else self.templates
        prompts = [t.format(name) for name in self.class_names for t in templates]
        texts = towers.embed_texts(prompts)
        if self.ensemble == "embeddings":
            mean = texts["text_embed"].reshape(len(self.class_names), len(templates), -1).mean(1)
            texts = {"text_embed": mean / np.linalg.norm(mean, axis=-1, keepdims=True)}
        scores = towers.score(towers.embed_images(self.source), texts).per_row
        scores = scores.reshape(len(scores), len(self.class_names), -1).mean(-1)
        return accuracies(scores, self.labels)


def accuracies(scores: np.ndarray, labels: np.ndarray) -> dict[str, float]:
    """Shares of images whose class is among the best.

    Args:
      scores: [n, classes]. A tie counts as if the right class came last among its equals, and
        NaN as a tie.
      labels: [n].

    Returns:
      top1, top5 and mean_per_class (top1 averaged over the classes that occur).
    """
    right = scores[np.arange(len(labels)), labels][:, None]
    rank = (~(scores < right)).sum(1) - 1
    hit = rank < 1
    per_class = [hit[labels == c].mean() for c in np.unique(labels)]
    return {
        "top1": float(hit.mean()),
        "top5": float((rank < 5).mean()),
        "mean_per_class": float(np.mean(per_class)),
    }
