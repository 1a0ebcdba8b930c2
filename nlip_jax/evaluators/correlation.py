"""Rank correlation, and its bootstrap as Crisscrossed Captions has it."""

import numpy as np


def average_ranks(values: np.ndarray) -> np.ndarray:
    """Ranks from 1, equal values share the mean of theirs; `[n]` float64."""
    _, place, counts = np.unique(values, return_inverse=True, return_counts=True)
    return _shared_ranks(counts)[place.reshape(-1)]


def spearman(x: np.ndarray, y: np.ndarray) -> float:
    """Spearman's rho: Pearson's correlation of the average ranks; NaN where either is constant.

    Args:
      x: `[n]` numbers, none NaN.
      y: `[n]`.
    """
    return _pearson(average_ranks(x), average_ranks(y))


def bootstrap_spearman(
    x: np.ndarray, y: np.ndarray, queries: np.ndarray, *, rounds: int, seed: int
) -> np.ndarray:
    """Spearman's rho of many samples of pairs that are not correlated with one another.

    Ratings of pairs that share an item depend on each other, so each round draws half of the
    queries without replacement, and one of the pairs of every query drawn (Parekh et al., EACL
    2021, section 5). Rounds with a constant side are NaN.

    Args:
      x: `[n]` numbers, none NaN.
      y: `[n]`.
      queries: `[n]` integers, the query of each pair.
      rounds: how many samples.
      seed: of all draws.

    Returns:
      `[rounds]` float64.
    """
    rng = np.random.default_rng(seed)
    _, place, counts = np.unique(queries, return_inverse=True, return_counts=True)
    pairs = np.argsort(place.reshape(-1), kind="stable")
    starts = np.cumsum(counts) - counts
    half = max(1, len(counts) // 2)
    # Sorted once: ranks in a sample come from counting.
    codes = [np.unique(side, return_inverse=True)[1].reshape(-1) for side in (x, y)]
    found = np.empty(rounds)
    for number in range(rounds):
        drawn = rng.permutation(len(counts))[:half]
        which = (rng.random(half) * counts[drawn]).astype(np.int64)
        sample = pairs[starts[drawn] + which]
        found[number] = _pearson(*(_ranks_of_codes(side[sample]) for side in codes))
    return found


def _ranks_of_codes(codes: np.ndarray) -> np.ndarray:
    return _shared_ranks(np.bincount(codes))[codes]


def _shared_ranks(counts: np.ndarray) -> np.ndarray:
    """The rank of each distinct value, from how often it occurs."""
    return np.cumsum(counts) - (counts - 1) / 2


def _pearson(x: np.ndarray, y: np.ndarray) -> float:
    x, y = x - x.mean(), y - y.mean()
    norm = np.sqrt((x @ x) * (y @ y))
    return float(x @ y / norm) if norm > 0 else float("nan")
