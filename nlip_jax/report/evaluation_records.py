"""What the pages of evaluations, comparisons and searches show: filled by the commands."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from nlip_jax.outcome import Compared, Outcome, Query


@dataclass(frozen=True, kw_only=True, eq=False)
class EvaluationReport:
    """Everything on the page of one evaluated model.

    Attributes:
      title: of the page: whose evaluation.
      description: one line below it.
      results: value of every metric by its path, `KIND/SET/METRIC`; may hold averages over sets
        (`zero_shot/mean`) beside what the outcomes say.
      intervals: (low, high) by the path of those metrics that have samples.
      outcomes: by "KIND/SET", such as "zero_shot/cifar10".
      provenance: what made the numbers, in words.
    """

    title: str
    description: str = ""
    results: Mapping[str, float] = field(default_factory=dict)
    intervals: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    outcomes: Mapping[str, Outcome] = field(default_factory=dict)
    provenance: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True, eq=False)
class ComparisonReport:
    """Everything on the page of two models side by side.

    Attributes:
      title: of the page.
      description: one line below it.
      name_a: of the first model, the one that is compared with.
      name_b: of the second, the one that is judged.
      metrics: in any order.
      tolerance: how much worse than A counts as equal, in the units of the metrics.
      provenance: what made the numbers, in words.
    """

    title: str
    description: str = ""
    name_a: str
    name_b: str
    metrics: Sequence[Compared]
    tolerance: float
    provenance: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True, eq=False)
class SearchReport:
    """Everything on the page of one search.

    Attributes:
      title: of the page.
      description: one line below it.
      query: text and image that were searched with, and the answers, the best first.
      weights: of the parts of the query, by "image" and "text", where they were combined.
      names: of the answers: their files or examples; as many as answers.
      provenance: what made the numbers, in words.
    """

    title: str
    description: str = ""
    query: Query
    weights: Mapping[str, float] = field(default_factory=dict)
    names: Sequence[str] = ()
    provenance: Mapping[str, str] = field(default_factory=dict)
