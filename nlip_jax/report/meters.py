"""Values on a common scale, as bars with whiskers; positions are shares of the scale's length."""

from collections.abc import Iterable
from dataclasses import dataclass
from math import isfinite

from nlip_jax.report.formats import is_share


@dataclass(frozen=True, kw_only=True)
class Meter:
    """A bar from 0 to a value, with a whisker over its interval.

    Attributes:
        share: where the bar ends, in [0, 1].
        low: where the whisker begins; None without one.
        high: where it ends; likewise.
    """

    share: float
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True, kw_only=True)
class Span:
    """An interval around a zero line, all in [0, 1].

    Attributes:
        zero: of the line.
        at: of the value.
        low: where the whisker begins; None without one.
        high: where it ends; likewise.
        tolerance_low: of the band that counts as equal.
        tolerance_high: likewise.
    """

    zero: float
    at: float
    low: float | None
    high: float | None
    tolerance_low: float
    tolerance_high: float


def make_meter(path: str, value: float, interval: tuple[float, float] | None) -> Meter | None:
    """The bar of a share; None for other metrics, which have no scale, and for NaN.

    Args:
        path: of the metric.
        value: of it.
        interval: (low, high), or None.
    """
    if not is_share(path) or not isfinite(value):
        return None
    known = interval is not None and all(map(isfinite, interval))
    low, high = map(_clip, interval) if known else (None, None)
    return Meter(share=_clip(value), low=low, high=high)


def reach_of(numbers: Iterable[float]) -> float:
    """The largest distance from zero of the finite ones; 0 without any."""
    return max((abs(number) for number in numbers if isfinite(number)), default=0.0)


def make_span(
    value: float, interval: tuple[float, float] | None, *, reach: float, tolerance: float
) -> Span | None:
    """A difference on a scale from -reach to reach; None where it is no number.

    Args:
        value: the difference.
        interval: (low, high), or None.
        reach: half the length of the scale, above 0.
        tolerance: half the width of the band around zero.
    """
    if not isfinite(value):
        return None

    def place(number: float) -> float:
        return _clip((number / reach + 1) / 2)

    known = interval is not None and all(map(isfinite, interval))
    return Span(
        zero=0.5,
        at=place(value),
        low=place(interval[0]) if known else None,
        high=place(interval[1]) if known else None,
        tolerance_low=place(-tolerance),
        tolerance_high=place(tolerance),
    )


def _clip(share: float) -> float:
    """A position inside of the scale, in few digits."""
    return round(min(max(share, 0.0), 1.0), 4)
