"""One self-contained HTML page that shows how good a model is, on every set it was measured on.

It stands alone and runs nothing, as `page` says of its own.
"""

import dataclasses
import os
from collections.abc import Mapping, Sequence

from nlip_jax.files import write_atomically
from nlip_jax.outcome import Outcome
from nlip_jax.report.evaluation_records import EvaluationReport
from nlip_jax.report.exhibits import Shown, show
from nlip_jax.report.formats import (
    GROUPS,
    Result,
    group_results,
    is_score,
    make_result,
    take_intervals,
)
from nlip_jax.report.meters import Meter, make_meter
from nlip_jax.report.page import ENVIRONMENT

_OPEN = 2  # sets whose part of the page is open from the start


@dataclasses.dataclass(frozen=True, kw_only=True)
class Number:
    """A metric as it stands in a table.

    Attributes:
        result: its name and texts.
        meter: its bar, if it has one.
        count: how many values it is the mean of; None where nobody knows.
        set_name: of the set it belongs to, where that stands beside it.
        anchor: id of the set's own part of the page; empty for averages over sets.
    """

    result: Result
    meter: Meter | None
    count: int | None
    set_name: str = ""
    anchor: str = ""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Part:
    """What the page shows of one set."""

    name: str
    anchor: str
    headline: Number | None
    numbers: list[Number]
    shown: Shown
    is_scored: bool


def render(report: EvaluationReport) -> str:
    """The page as HTML: the same report gives the same text."""
    values, found = take_intervals(report.results)
    intervals = found | dict(report.intervals)
    order = sorted(report.outcomes, key=lambda path: _rank(path.split("/", 1)[0]))
    anchors = {path: f"set{i}" for i, path in enumerate(order)}
    averages, rest = _split(values, sets=order)
    kinds: dict[str, list[Number]] = {path.split("/", 1)[0]: [] for path in order}
    for path, value in averages.items():
        row = _number(path, value, intervals.get(path), set_name=path.split("/")[1])
        kinds[path.split("/", 1)[0]].append(row)
    parts = []
    for path in order:
        outcome = report.outcomes[path]
        numbers = _numbers(path, outcome, values, intervals)
        main = numbers.get(outcome.headline or next(iter(numbers), ""))
        if main is not None:
            kind, name = path.split("/", 1)
            row = dataclasses.replace(main, set_name=name, anchor=anchors[path])
            kinds[kind].append(row)
        part = Part(
            name=path,
            anchor=anchors[path],
            headline=main,
            numbers=list(numbers.values()),
            shown=show(outcome.exhibits, name=anchors[path]),
            is_scored=any(is_score(f"{path}/{name}") for name in numbers),
        )
        parts.append(part)
    ends = {
        f"{name}{end}": value
        for name in rest
        if name in intervals
        for end, value in zip(("_low", "_high"), intervals[name], strict=True)
    }
    return ENVIRONMENT.get_template("evaluation.html").render(
        report=report,
        kinds={kind: rows for kind, rows in kinds.items() if rows},
        parts=parts,
        num_open=_OPEN,
        groups=group_results(rest | ends),
        has_intervals=bool(intervals),
    )


def write(path: str | os.PathLike, report: EvaluationReport) -> None:
    """Writes the page atomically.

    Args:
        path: where the page goes; its folder exists.
        report: what the page shows.
    """
    write_atomically(path, render(report).encode())


def _rank(kind: str) -> int:
    return GROUPS.index(kind) if kind in GROUPS else GROUPS.index("other")


def _rank(kind: str) -> int:
    return GROUPS.index(kind) if kind in GROUPS else GROUPS.index("other")


def _split(
    values: Mapping[str, float], *, sets: Sequence[str]
) -> tuple[dict[str, float], dict[str, float]]:
    """Numbers beside those of the sets: averages over the sets of a kind, and all others."""
    kinds = {path.split("/", 1)[0] for path in sets}
    averages, rest = {}, {}
    for path, value in values.items():
        parts = path.split("/")
        if "/".join(parts[:2]) not in sets:
            is_average = len(parts) > 2 and parts[0] in kinds
            (averages if is_average else rest)[path] = value
    return averages, rest


def _numbers(
    where: str,
    outcome: Outcome,
    values: Mapping[str, float],
    intervals: Mapping[str, tuple[float, float]],
) -> dict[str, Number]:
    """The metrics of a set by their names; what the report says of them goes first."""
    metrics, own = take_intervals(outcome.metrics)
    return {
        name: _number(
            f"{where}/{name}",
            values.get(f"{where}/{name}", value),
            intervals.get(f"{where}/{name}", own.get(name)),
            count=len(outcome.samples[name].values) if name in outcome.samples else None,
        )
        for name, value in metrics.items()
    }


def _number(
    path: str,
    value: float,
    interval: tuple[float, float] | None,
    *,
    count: int | None = None,
    set_name: str = "",
) -> Number:
    name = path.split("/", 2)[-1]
    return Number(
        result=make_result(path, value, interval=interval, name=name),
        meter=make_meter(path, value, interval),
        count=count,
        set_name=set_name,
    )
