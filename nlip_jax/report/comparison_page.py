"""One self-contained HTML page that shows two models side by side, metric by metric.

It stands alone and runs nothing, as `page` says of its own.
"""

import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from math import isnan

from nlip_jax.files import write_atomically
from nlip_jax.outcome import VERDICTS, Compared
from nlip_jax.report.evaluation_records import ComparisonReport
from nlip_jax.report.formats import (
    format_difference,
    format_number,
    format_signed_interval,
    format_value,
    is_share,
)
from nlip_jax.report.meters import Span, make_span, reach_of
from nlip_jax.report.page import ENVIRONMENT


@dataclass(frozen=True, kw_only=True)
class Row:
    """One metric, ready for display."""

    metric: Compared
    a: str
    b: str
    difference: str
    interval: str
    p: str
    span: Span | None


def render(report: ComparisonReport) -> str:
    """The page as HTML: the same report gives the same text."""
    ordered = sort_metrics(report.metrics)
    reaches = _reaches(report)
    counts = Counter(metric.verdict for metric in report.metrics)
    return ENVIRONMENT.get_template("comparison.html").render(
        report=report,
        rows=[_row(metric, reaches[_scale(metric.name)], report.tolerance) for metric in ordered],
        counts={verdict: counts[verdict] for verdict in VERDICTS if counts[verdict]},
        tolerance=_points(report.tolerance),
    )


def write(path: str | os.PathLike, report: ComparisonReport) -> None:
    """Writes the page atomically.

    Args:
        path: where the page goes; its folder exists.
        report: what the page shows.
    """
    write_atomically(path, render(report).encode())


def sort_metrics(metrics: Sequence[Compared]) -> list[Compared]:
    """The metrics that decide first: by verdict, then the largest differences, then by name."""

    def rank(metric: Compared) -> tuple[int, int, float, str]:
        size = abs(metric.difference)
        return (
            VERDICTS.index(metric.verdict),
            0 if is_share(metric.name) else 1,  # differences of other units do not compare
            0.0 if isnan(size) else -size,
            metric.name,
        )

    return sorted(metrics, key=rank)


def _scale(name: str) -> str:
    """Metrics of one scale: all shares, and those of one name."""
    return "" if is_share(name) else name.split("/", 2)[-1]


def _reaches(report: ComparisonReport) -> dict[str, float]:
    """Half the length of every scale: all that is drawn on it fits."""
    reaches: dict[str, float] = {}
    for metric in report.metrics:
        scale = _scale(metric.name)
        ends = [end for end in (metric.low, metric.high) if end is not None]
        largest = reach_of([metric.difference, *ends])
        reaches[scale] = max(reaches.get(scale, 0.0), 1.05 * largest)
    return {scale: reach or 1.0 for scale, reach in reaches.items()}


def _row(metric: Compared, reach: float, tolerance: float) -> Row:
    known = metric.low is not None and metric.high is not None
    interval = (metric.low, metric.high) if known else None
    return Row(
        metric=metric,
        a=format_value(metric.name, metric.a),
        b=format_value(metric.name, metric.b),
        difference=format_difference(metric.name, metric.difference),
        interval=format_signed_interval(metric.name, *interval) if interval else "",
        p="" if metric.p is None else format_p(metric.p),
        span=make_span(metric.difference, interval, reach=reach, tolerance=tolerance),
    )


def format_p(p: float) -> str:
    """A p-value: `0.032`, and `< 0.001` where more digits would pretend to know."""
    return "< 0.001" if p < 0.001 else f"{p:.3f}"


def _points(tolerance: float) -> str:
    points = format_number(100 * tolerance)
    return f"{points} point{'s' * (points != '1')}"
