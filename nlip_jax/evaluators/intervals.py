"""Bootstrap intervals of metrics that are means: how much of a number is luck of the draw.

Resampling n values with replacement only decides how often each *distinct* value is drawn, and
those counts are multinomial. A metric of hits and misses so costs two numbers a draw instead of n,
from exactly the same distribution.

Where all values are hits, or all are misses, every resampling is the same, and says nothing of what
was not seen. There the interval is that of Clopper and Pearson (1934): of n misses, from 0 to
1 - 0.025^(1/n), about 3.7 / n.
"""

import zlib
from collections.abc import Mapping

import numpy as np

from nlip_jax.outcome import Outcome, Samples

LEVEL = 0.95
_CHUNK_BYTES = 64 << 20  # of counts or places in memory at a time
# A binomial draw costs about so many times as much as one of a place and its value.
_COST_OF_COUNT = 8
_ROUNDING = 1e-12  # differences of means that are none


def intervals(
    outcomes: Mapping[str, Outcome], *, draws: int, seed: int
) -> dict[str, tuple[float, float]]:
    """The interval of every metric whose samples tell of one: KIND/SET/METRIC -> (low, high).

    Args:
      outcomes: by KIND/SET.
      draws: of the bootstrap; 0: no intervals.
      seed: every metric draws by (seed, its name), whichever others there are.
    """
    if not draws:
        return {}
    found = {
        f"{name}/{metric}": interval(samples, draws=draws, rng=generator(seed, f"{name}/{metric}"))
        for name, outcome in outcomes.items()
        for metric, samples in outcome.samples.items()
    }
    return {name: both for name, both in found.items() if np.isfinite(both).all()}


def generator(seed: int, name: str) -> np.random.Generator:
    """Random numbers of one metric."""
    return np.random.default_rng([seed, zlib.crc32(name.encode())])


def interval(
    samples: Samples, *, draws: int, rng: np.random.Generator, level: float = LEVEL
) -> tuple[float, float]:
    """The percentile interval of a mean (Efron and Tibshirani, 1993, section 13.3).

    The exact one of a share where all values are 0, or all are 1; a group then counts once.

    Args:
      samples: values `[n]`, whose groups are drawn whole.
      draws: of the bootstrap.
      rng: where they come from.
      level: share of the draws that lies inside.

    Returns:
      Both ends; NaN where there are no samples, some are not finite, or all groups have the same
      mean other than 0 or 1, as a single group has: nothing is known of their spread then.
    """
    sums, sizes = totals(samples)
    for share in (0.0, 1.0):
        if len(sums) and (sums == share * sizes).all():
            bound = ((1 - level) / 2) ** (1 / len(sums))
            return (bound, 1.0) if share else (0.0, 1 - bound)
    if not len(sums) or np.ptp(sums / sizes) < _ROUNDING:
        return float("nan"), float("nan")
    return ends(draw_means(sums, sizes, draws=draws, rng=rng), level=level)


def ends(means: np.ndarray, *, level: float = LEVEL) -> tuple[float, float]:
    """The interval that leaves the same share of the draws out on both sides."""
    if not len(means) or not np.isfinite(means).all():
        return float("nan"), float("nan")
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def totals(samples: Samples) -> tuple[np.ndarray, np.ndarray]:
    """Sum and number of the values of every group, `[g]` float64 each."""
    values = np.asarray(samples.values, np.float64)
    if samples.groups is None:
        return values, np.ones(len(values))
    _, group = np.unique(samples.groups, return_inverse=True)
    return np.bincount(group, weights=values), np.bincount(group).astype(np.float64)


def draw_means(
    sums: np.ndarray, sizes: np.ndarray, *, draws: int, rng: np.random.Generator
) -> np.ndarray:
    """Means of g groups drawn with replacement, again and again.

    With groups of uneven sizes it is the ratio of two sums, as the metric itself.

    Args:
      sums: `[g]` of the values of each group.
      sizes: `[g]` number of values of each.
      draws: how often g groups are drawn.
      rng: where they come from.

    Returns:
      `[draws]` float64; none where there are no groups.
    """
    count = len(sums)
    if not count:
        return np.zeros(0)
    if not np.isfinite(sums).all():
        return np.full(draws, np.nan)
    pairs, times = np.unique(sums + 1j * sizes, return_counts=True)
    if len(pairs) * _COST_OF_COUNT > count:  # hardly any are the same: draw their places
        width, pairs = count, sums + 1j * sizes

        def draw(rows: int) -> np.ndarray:
            return pairs[rng.integers(count, size=(rows, count))].sum(1)

    else:
        width = len(pairs)

        def draw(rows: int) -> np.ndarray:
            return rng.multinomial(count, times / count, size=rows) @ pairs

    rows = max(1, _CHUNK_BYTES // (24 * width))
    drawn = [draw(min(rows, draws - start)) for start in range(0, draws, rows)]
    found = np.concatenate(drawn)
    return found.real / found.imag
