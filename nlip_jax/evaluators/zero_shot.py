"""Zero-shot classification: the class whose prompts lie nearest to the image."""

import dataclasses
import heapq
from collections import Counter, defaultdict
from collections.abc import Sequence

import numpy as np

from nlip_jax.data.labelled import LabelledSet
from nlip_jax.errors import UsageError
from nlip_jax.evaluators.base import Towers
from nlip_jax.evaluators.prompts.entries import METRICS, SLOT
from nlip_jax.methods.base import Features
from nlip_jax.outcome import Confusion, Confusions, Outcome, PerClass, Samples

ENSEMBLES = ("embeddings", "similarities", "none")
_TOP = 5
_NEVER = np.iinfo(np.int32).max  # the rank of what is not found
_SHOWN = 20  # most frequent mistakes
_MAX_PROMPTS = 1 << 15  # embedded at a time, where no more than their means are kept


@dataclasses.dataclass(frozen=True, kw_only=True)
class ZeroShot:
    """One labelled set.

    Attributes:
      labelled: its images, classes and templates.
      ensemble: how several prompts of a class become one: the mean of normalised embeddings,
        normalised again (CLIP, section 3.1.4; needs a similarity of pooled embeddings); the mean
        of similarities (FILIP, section 3.5); or "none", the first template alone.
      metric: which of `METRICS` stands for the set.
    """

    labelled: LabelledSet
    ensemble: str = "embeddings"
    metric: str = "top1"

    def __post_init__(self):
        if self.ensemble not in ENSEMBLES:
            raise UsageError(f"ensemble={self.ensemble!r}: choose one of {', '.join(ENSEMBLES)}")
        if self.metric not in METRICS:
            raise UsageError(f"metric={self.metric!r}: choose one of {', '.join(METRICS)}")
        if not self.labelled.templates:
            raise UsageError("zero-shot classification needs templates, and the set has none")

    def run(self, towers: Towers) -> Outcome:
        """top1, top5 and mean_per_class, as shares, and which classes are taken for which."""
        names, labels = self.labelled.class_names, self.labelled.labels
        templates = self.labelled.templates[: 1 if self.ensemble == "none" else None]
        if self.ensemble == "embeddings":
            texts, average = _mean_embeddings(towers, names, templates), 1
        else:
            texts, average = towers.embed_texts(prompts_of(names, templates)), len(templates)
        found = towers.search_texts(
            towers.embed_images(self.labelled.source),
            texts,
            right=_namesakes(names)[labels],
            top=_TOP,
            average=average,
        )
        rank = found.rank + _before_namesake(names)[labels]
        rank = np.where(found.best[:, 0] < 0, _NEVER, rank)  # an image that cannot be read
        metrics, samples = accuracies(rank, labels)
        return Outcome(
            metrics=metrics,
            samples=samples,
            headline=self.metric,
            exhibits=(
                per_class(rank, labels, names),
                confusions(rank, found.best, labels, names),
            ),
        )


def prompts_of(names: Sequence[str], templates: Sequence[str]) -> list[str]:
    """Every template of the first name, of the second, and so on."""
    return [template.replace(SLOT, name) for name in names for template in templates]


def accuracies(
    rank: np.ndarray, labels: np.ndarray
) -> tuple[dict[str, float], dict[str, Samples]]:
    """Shares of images whose class is among the best.

    Args:
      rank: `[n]` place of the right class, from 0.
      labels: `[n]`.

    Returns:
      top1, top5 and mean_per_class (top1 averaged over the classes that occur), and what they are
      the means of.
    """
    hits, counts = (rank < 1).astype(np.float64), np.bincount(labels)
    occurs = counts > 0
    mean = (np.bincount(labels, hits)[occurs] / counts[occurs]).mean()
    # So weighted, the mean over images is the mean over classes. Weighted is what lies off it: a
    # resample with more images of a rare class is no better for them.
    weight = len(labels) / (np.count_nonzero(counts) * counts[labels])
    balanced = mean + weight * (hits - mean)
    values = {"top1": hits, "top5": rank < _TOP, "mean_per_class": balanced}
    samples = {name: Samples(values=np.asarray(v, np.float64)) for name, v in values.items()}
    return {name: float(s.values.mean()) for name, s in samples.items()}, samples


def per_class(rank: np.ndarray, labels: np.ndarray, names: Sequence[str]) -> PerClass:
    """The share of every class that was classified rightly.

    Args:
      rank: `[n]` place of the right class, from 0.
      labels: `[n]`.
      names: of the classes.
    """
    counts = np.bincount(labels, minlength=len(names))
    right = np.bincount(labels[rank < 1], minlength=len(names))
    accuracy = np.where(counts > 0, right / np.maximum(counts, 1), np.nan)
    return PerClass(names=tuple(names), counts=counts, accuracy=accuracy)


def confusions(
    rank: np.ndarray, best: np.ndarray, labels: np.ndarray, names: Sequence[str]
) -> Confusions:
    """The most frequent mistakes; of equally frequent ones those of lower labels.

    Args:
      rank: `[n]` place of the right class, from 0.
      best: `[n, k]` best classes, the best first; -1 for none.
      labels: `[n]`.
      names: of the classes.
    """
    # Where several classes share the highest score, the right one may stand first.
    others = np.where(best[:, :1] == labels[:, None], best[:, 1:2], best[:, :1])[:, :1]
    predicted = others[:, 0] if others.shape[1] else np.full(len(labels), -1)
    is_wrong = (rank >= 1) & (predicted >= 0)
    pairs = Counter(zip(labels[is_wrong].tolist(), predicted[is_wrong].tolist(), strict=True))
    counts = np.bincount(labels, minlength=len(names))
    shown = heapq.nsmallest(_SHOWN, pairs.items(), key=lambda item: (-item[1], item[0]))
    return Confusions(
        pairs=tuple(
            Confusion(
                true=names[true],
                predicted=names[taken_for],
                count=count,
                share=count / int(counts[true]),
            )
            for (true, taken_for), count in shown
        )
    )


def _mean_embeddings(towers: Towers, names: Sequence[str], templates: Sequence[str]) -> Features:
    """One embedding a class, of length 1; the prompts of a few classes are held at a time."""
    step = max(1, _MAX_PROMPTS // len(templates))
    means = []
    for start in range(0, len(names), step):
        part = names[start : start + step]
        embed = towers.embed_texts(prompts_of(part, templates))["text_embed"]
        by_class = _unit(embed).reshape(len(part), len(templates), -1)
        means.append(_unit(by_class.mean(1, dtype=np.float64)).astype(np.float32))
    return {"text_embed": np.concatenate(means)}


def _unit(vectors: np.ndarray) -> np.ndarray:
    return vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)


# Two classes of ImageNet are called "missile", and two "sunglasses": to a model they are one. As
# with the argmax of published evaluations, the first of them is found and the others are not. They
# count as right together, and then the first comes first.


def _namesakes(names: Sequence[str]) -> np.ndarray:
    """Classes of the same name as each, itself included, `[classes, most]`, filled up with -1."""
    same = defaultdict(list)
    for i, name in enumerate(names):
        same[name].append(i)
    table = np.full((len(names), max(map(len, same.values()))), -1, np.int32)
    for i, name in enumerate(names):
        table[i, : len(same[name])] = same[name]
    return table


def _before_namesake(names: Sequence[str]) -> np.ndarray:
    """How many classes of the same name come before each, `[classes]`."""
    seen = Counter()
    before = np.zeros(len(names), np.int32)
    for i, name in enumerate(names):
        before[i] = seen[name]
        seen[name] += 1
    return before
