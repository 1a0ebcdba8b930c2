"""The arithmetic of a sweep: means and spreads over seeds, and shares of a gap."""

import dataclasses
import math
import statistics
from collections.abc import Iterable, Mapping


@dataclasses.dataclass(frozen=True, kw_only=True)
class Spread:
    """Numbers of several seeds, summed up.

    Attributes:
      mean: of them; NaN without any.
      deviation: their sample standard deviation (n - 1); NaN with fewer than two.
      count: how many there are.
    """

    mean: float
    deviation: float
    count: int


def spread(values: Iterable[float]) -> Spread:
    """Mean and sample standard deviation; numbers that are not finite make both NaN."""
    values = list(values)
    finite = all(map(math.isfinite, values))
    return Spread(
        mean=statistics.fmean(values) if values and finite else math.nan,
        deviation=statistics.stdev(values) if len(values) > 1 and finite else math.nan,
        count=len(values),
    )


def share_closed(*, arm: float, baseline: float, ceiling: float) -> float:
    """How much of the way from the baseline to the ceiling an arm has gone: 0 none, 1 all of it.

    Args:
      arm: its result; the larger, the better.
      baseline: that of the arm to improve on.
      ceiling: that of the arm to come up to.

    Returns:
      (arm - baseline) / (ceiling - baseline); NaN where the ceiling does not lie above.
    """
    gap = ceiling - baseline
    return (arm - baseline) / gap if gap > 0 else math.nan


def shares_closed(
    arm: Mapping[int, float], *, baseline: Mapping[int, float], ceiling: Mapping[int, float]
) -> dict[int, float]:
    """The share that each seed has closed, of its own gap: what seeds have in common cancels.

    Args:
      arm: seed -> result.
      baseline: the same of the arm to improve on.
      ceiling: the same of the arm to come up to.

    Returns:
      Seed -> share, for the seeds that all three have.
    """
    return {
        seed: share_closed(arm=value, baseline=baseline[seed], ceiling=ceiling[seed])
        for seed, value in arm.items()
        if seed in baseline and seed in ceiling
    }
