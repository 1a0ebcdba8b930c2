"""What an evaluator shows beside its numbers, made ready for a page."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from nlip_jax.outcome import Confusion, Confusions, Curve, Exhibit, PerClass, Queries, Query
from nlip_jax.report import plots

_FEW_CLASSES = 30  # up to here they are all shown at once
_ENDS = 12  # of the worst and of the best classes, where there are more
_CONFUSIONS = 10
_QUERIES = 16
_TEXT = 400  # characters of a text: captions may be whole web pages


class ClassRow(NamedTuple):
    """The accuracy of one class."""

    name: str
    count: int
    accuracy: float


@dataclass(frozen=True, kw_only=True)
class Classes:
    """The classes of a set; those without images only counted.

    Attributes:
        worst: the worst first; all of them where there are few.
        best: the best first; empty where there are few.
        all: by name; empty where there are few.
        num_empty: classes without images.
    """

    worst: list[ClassRow]
    best: list[ClassRow]
    all: list[ClassRow]
    num_empty: int


@dataclass(frozen=True, kw_only=True)
class Shown:
    """The exhibits of one set, by what they look like; what is empty is left out.

    Attributes:
        plots: drawings of curves.
        confusions: tables of confusions, each in the order given, and how many there are in all.
        classes: tables of classes.
        queries: lists of queries with their answers, and how many there are in all.
    """

    plots: list[plots.Plot]
    confusions: list[tuple[list[Confusion], int]]
    classes: list[Classes]
    queries: list[tuple[str, list[Query], int]]


def show(exhibits: Iterable[Exhibit], *, name: str) -> Shown:
    """Sorts and shortens the exhibits of one set.

    Args:
        exhibits: as the evaluator gave them.
        name: prefix of the ids of drawings.
    """
    shown = Shown(plots=[], confusions=[], classes=[], queries=[])
    for number, exhibit in enumerate(exhibits):
        match exhibit:
            case Curve() if exhibit.points:
                shown.plots.append(plots.few_points(exhibit, name=f"{name}-{number}"))
            case Confusions() if exhibit.pairs:
                shown.confusions.append((list(exhibit.pairs[:_CONFUSIONS]), len(exhibit.pairs)))
            case PerClass() if np.any(exhibit.counts):
                shown.classes.append(rank_classes(exhibit))
            case Queries() if exhibit.queries:
                chosen = list(exhibit.queries[:_QUERIES])
                shown.queries.append((exhibit.title, chosen, len(exhibit.queries)))
    return shown


def rank_classes(classes: PerClass) -> Classes:
    """Classes by accuracy; of equal ones the larger come first, then they go by name."""
    rows = [
        ClassRow(name, int(count), float(accuracy))
        for name, count, accuracy in zip(
            classes.names, classes.counts, classes.accuracy, strict=True
        )
        if count
    ]
    worst = sorted(rows, key=lambda row: (row.accuracy, -row.count, row.name))
    num_empty = len(classes.names) - len(rows)
    if len(rows) <= _FEW_CLASSES:
        return Classes(worst=worst, best=[], all=[], num_empty=num_empty)
    best = sorted(rows, key=lambda row: (-row.accuracy, -row.count, row.name))
    by_name = sorted(rows, key=lambda row: (row.name.casefold(), row.name))
    return Classes(worst=worst[:_ENDS], best=best[:_ENDS], all=by_name, num_empty=num_empty)


def clip_text(text: str) -> str:
    """A text of readable length."""
    return text if len(text) <= _TEXT else f"{text[: _TEXT - 1]}\N{HORIZONTAL ELLIPSIS}"
