"""What an evaluator found: numbers, what each of them is the mean of, and what people look at.

Evaluators and comparisons make these, pages show them; neither knows the other.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

import numpy as np


@dataclass(frozen=True, kw_only=True, eq=False)
class Samples:
    """What a metric is the mean of, for intervals and paired comparisons.

    Attributes:
      values: `[n]` floats, whose mean is the metric.
      groups: `[n]` integers: values of one group are not independent (captions of one image) and
        are drawn together; None where each stands for itself.
    """

    values: np.ndarray
    groups: np.ndarray | None = None


@dataclass(frozen=True, kw_only=True, eq=False)
class PerClass:
    """The accuracy of every class.

    Attributes:
      names: of the classes.
      counts: `[classes]` images of each.
      accuracy: `[classes]` share of them that were classified rightly; NaN without images.
    """

    names: tuple[str, ...]
    counts: np.ndarray
    accuracy: np.ndarray


@dataclass(frozen=True, kw_only=True)
class Confusion:
    """Images of one class that were taken for another; `share` is of all images of the class."""

    true: str
    predicted: str
    count: int
    share: float


@dataclass(frozen=True, kw_only=True)
class Confusions:
    """The most frequent mistakes, the most frequent first."""

    pairs: tuple[Confusion, ...]


@dataclass(frozen=True, kw_only=True, eq=False)
class Item:
    """A text or an image (or both), as a query or as an answer.

    Attributes:
      text: empty for none.
      image: `[h, w, 3]` uint8 RGB; None for none.
      score: similarity to the query; None for a query itself.
      is_right: whether it is a right answer; None where nobody knows.
    """

    text: str = ""
    image: np.ndarray | None = None
    score: float | None = None
    is_right: bool | None = None


@dataclass(frozen=True, kw_only=True)
class Query:
    """A query and its best answers, the best first; `note` says how it went."""

    query: Item
    answers: tuple[Item, ...]
    note: str = ""


@dataclass(frozen=True, kw_only=True)
class Queries:
    """Queries to look at."""

    title: str
    queries: tuple[Query, ...]


@dataclass(frozen=True, kw_only=True)
class Curve:
    """Values over a few points: accuracy over shots, over regularisation, over epochs.

    Attributes:
      title: what is shown.
      x_label: of the points; `log_x` says that they are better spread by their logarithm.
      y_label: of the values; decides their format, as a metric's name does.
      points: (x, y), by x.
    """

    title: str
    x_label: str
    y_label: str
    points: tuple[tuple[float, float], ...]
    log_x: bool = False


Exhibit = PerClass | Confusions | Queries | Curve


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """All that an evaluator found of one set.

    Attributes:
      metrics: name -> value, the most telling first; shares are in [0, 1].
      samples: by the names of those metrics that are means.
      headline: the metric that stands for the set in averages over sets; empty for none.
      exhibits: what its part of the page shows beside the numbers.
    """

    metrics: Mapping[str, float]
    samples: Mapping[str, Samples] = field(default_factory=dict)
    headline: str = ""
    exhibits: tuple[Exhibit, ...] = ()


Verdict = Literal["worse", "better", "no difference shown", "not judged"]
VERDICTS: tuple[Verdict, ...] = ("worse", "better", "no difference shown", "not judged")


@dataclass(frozen=True, kw_only=True)
class Compared:
    """One metric of two models.

    Attributes:
      name: KIND/SET/METRIC.
      a: value of the first.
      b: value of the second, which is judged.
      low: of the 95 % interval of b - a; None where it is not judged.
      high: likewise.
      p: of "worse by more than the tolerance", after Holm's correction; likewise.
      verdict: one of `VERDICTS`; "worse" and "better" mean by more than the tolerance.
    """

    name: str
    a: float
    b: float
    low: float | None = None
    high: float | None = None
    p: float | None = None
    verdict: Verdict = "not judged"

    @property
    def difference(self) -> float:
        """b - a."""
        return self.b - self.a
