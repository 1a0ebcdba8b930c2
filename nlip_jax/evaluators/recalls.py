"""From the ranks of the best right answers to recalls, their means, and what these are means of."""

from collections.abc import Mapping, Sequence

import numpy as np

from nlip_jax.outcome import Samples

CUTS = (1, 5, 10)


def recalls(
    way: str, rank: np.ndarray, *, groups: np.ndarray | None = None
) -> tuple[dict[str, float], dict[str, Samples]]:
    """Recall at `CUTS` and the median rank of one way to search.

    Args:
      way: begins the names, such as "image_to_text".
      rank: `[q]` how many wrong candidates come before the best right one of every query.
      groups: `[q]` integers: queries of one group are not independent.

    Returns:
      WAY/recall@K (share of queries with a right one among the best K) and WAY/median_rank (from
      1), and the hits behind the recalls.
    """
    samples = {
        f"{way}/recall@{cut}": Samples(values=(rank < cut).astype(np.float64), groups=groups)
        for cut in CUTS
    }
    metrics = {name: float(hits.values.mean()) for name, hits in samples.items()}
    return metrics | {f"{way}/median_rank": float(np.median(rank) + 1)}, samples


def mean_of(samples: Sequence[Samples], groups: Sequence[np.ndarray]) -> Samples:
    """What the unweighted mean of several means is the mean of.

    Each value stands for the mean and its own distance from the mean of its part, weighted by the
    size of that: a resample with more values of one part then says no more for it.

    Args:
      samples: of every mean.
      groups: `[n]` of each, in one numbering: values of one group are drawn together.
    """
    total = sum(len(one.values) for one in samples)
    means = [float(one.values.mean()) for one in samples]
    mean = float(np.mean(means))
    values = [
        mean + (one.values - own) * total / (len(samples) * len(one.values))
        for one, own in zip(samples, means, strict=True)
    ]
    return Samples(values=np.concatenate(values), groups=np.concatenate(groups))


def mean_metrics(parts: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """The unweighted mean of every metric over several sets that have the same ones."""
    return {name: float(np.mean([part[name] for part in parts])) for name in parts[0]}


def right_answers(
    queries: np.ndarray, answers: np.ndarray, *, num_queries: int, least: int = 1
) -> np.ndarray:
    """The right answers of every query, `[num_queries, most]` int32, filled up with -1.

    Args:
      queries: `[p]` integers.
      answers: `[p]` integers: `answers[i]` is right for `queries[i]`.
      num_queries: of them, those without a right answer included.
      least: columns there are at least.
    """
    counts = np.bincount(queries, minlength=num_queries)
    order = np.argsort(queries, kind="stable")
    starts = np.cumsum(counts) - counts
    place = np.arange(len(queries)) - starts[queries[order]]
    found = np.full((num_queries, max(counts.max(initial=0), least)), -1, np.int32)
    found[queries[order], place] = answers[order]
    return found
