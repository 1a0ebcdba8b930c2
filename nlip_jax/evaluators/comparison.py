"""Two models on the same examples: is the second worse, and by more than luck and a tolerance?

Pure NumPy, and quick: both models saw the same examples, so only the differences are drawn from.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from nlip_jax.evaluators.intervals import draw_means, ends, generator, totals
from nlip_jax.outcome import Compared, Samples

DRAWS = 10_000
ALPHA = 0.05  # chance of one wrong "worse" or more, where no metric is worse

# Metrics of which less is more, or of which nobody can say.
_NOT_JUDGED = re.compile(r"rank|gap|brier|error|loss|alignment|uniformity|perplexity|distance")


@dataclass(frozen=True, kw_only=True, eq=False)
class Measured:
    """What is known of one model.

    Attributes:
      metrics: KIND/SET/METRIC -> value.
      samples: what some of them are the means of.
      sets: KIND/SET -> fingerprint of its examples.
    """

    metrics: Mapping[str, float]
    samples: Mapping[str, Samples] = field(default_factory=dict)
    sets: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """All that two models can be compared by.

    Attributes:
      metrics: in the order of the first.
      refused: a line for each set or metric that cannot be compared, and why.
    """

    metrics: tuple[Compared, ...]
    refused: tuple[str, ...]

    @property
    def is_worse(self) -> bool:
        """Whether a judged metric is worse."""
        return any(metric.verdict == "worse" for metric in self.metrics)


@dataclass(frozen=True)
class _Test:
    low: float
    high: float
    p_worse: float
    p_better: float


def compare(
    a: Measured, b: Measured, *, tolerance: float, draws: int = DRAWS, seed: int = 0
) -> Comparison:
    """Judges b beside a.

    Args:
      a: the model that is compared with.
      b: the model that is judged.
      tolerance: differences up to it count as none; in the units of the metrics.
      draws: of the bootstrap.
      seed: of these.
    """
    refused, other = [], []
    for name in a.sets:
        if name in b.sets and a.sets[name] != b.sets[name]:
            both = f"{a.sets[name]}, {b.sets[name]}"
            refused.append(f"{name}: its examples are not the same in both ({both}): not compared")
            other.append(f"{name}/")
    for name in {_set(metric): None for metric in a.metrics if _set(metric) not in a.sets}:
        if _of_kind(name, a.sets) != _of_kind(name, b.sets):
            refused.append(f"{name}: it is of other sets in the first and the second: not compared")
            other.append(f"{name}/")
    for one, another, which in ((a, b, "first"), (b, a, "second")):
        alone = [name for name in one.metrics if name not in another.metrics]
        if alone:
            more = f" and {len(alone) - 1} more" if len(alone) > 1 else ""
            refused.append(f"only the {which} has {alone[0]}{more}: not compared")
    shared = [n for n in a.metrics if n in b.metrics and not n.startswith(tuple(other))]
    tests = {}
    for name in shared:
        if name not in a.samples or name not in b.samples or _NOT_JUDGED.search(_last(name)):
            continue
        reason = _unpaired(a.samples[name], b.samples[name])
        if reason:
            refused.append(f"{name}: {reason}: not judged")
            continue
        rng = generator(seed, name)
        tests[name] = _test(a.samples[name], b.samples[name], tolerance, draws=draws, rng=rng)
    worse = holm([test.p_worse for test in tests.values()])
    better = holm([test.p_better for test in tests.values()])
    judged = {
        name: {"low": test.low, "high": test.high, "p": p, "verdict": _verdict(p, q)}
        for (name, test), p, q in zip(tests.items(), worse, better, strict=True)
    }
    return Comparison(
        metrics=tuple(
            Compared(name=name, a=a.metrics[name], b=b.metrics[name], **judged.get(name, {}))
            for name in shared
        ),
        refused=tuple(refused),
    )


def holm(p: list[float]) -> list[float]:
    """Adjusted p values of a family of tests (Holm, 1979): monotone, at most 1, in their order."""
    adjusted, highest = [0.0] * len(p), 0.0
    for rank, i in enumerate(sorted(range(len(p)), key=p.__getitem__)):
        highest = max(highest, min(1.0, (len(p) - rank) * p[i]))
        adjusted[i] = highest
    return adjusted


def _set(name: str) -> str:
    return "/".join(name.split("/")[:2])


def _of_kind(name: str, sets: Mapping[str, str]) -> dict[str, str]:
    """The sets that something of a kind, such as an average over them, is made of."""
    kind = name.partition("/")[0] + "/"
    return {known: examples for known, examples in sets.items() if known.startswith(kind)}


def _last(name: str) -> str:
    return name.rsplit("/", 1)[-1]


def _unpaired(a: Samples, b: Samples) -> str:
    """Why two samples are not of the same examples; empty if they are."""
    if len(a.values) != len(b.values):
        return f"{len(a.values)} values in the first, {len(b.values)} in the second"
    grouped = [samples.groups is not None for samples in (a, b)]
    if grouped[0] != grouped[1] or (grouped[0] and not np.array_equal(a.groups, b.groups)):
        return "its values are grouped in different ways"
    if not len(a.values):
        return "it has no values"
    if not (np.isfinite(a.values).all() and np.isfinite(b.values).all()):
        return "some of its values are not finite"
    return ""


def _test(
    a: Samples, b: Samples, tolerance: float, *, draws: int, rng: np.random.Generator
) -> _Test:
    """The paired bootstrap of the mean of b - a, by groups.

    p is the share of the draws that contradict (Efron and Tibshirani, 1993, section 15.4): 0.025
    where that end of the interval meets the tolerance. Counting the data itself as a draw keeps it
    above 0 (Davison and Hinkley, 1997, section 4.2).
    """
    differences = np.asarray(b.values, np.float64) - np.asarray(a.values, np.float64)
    paired = Samples(values=differences, groups=a.groups)
    means = draw_means(*totals(paired), draws=draws, rng=rng)
    low, high = ends(means)
    return _Test(
        low=low,
        high=high,
        p_worse=float((1 + np.sum(means >= -tolerance)) / (1 + draws)),
        p_better=float((1 + np.sum(means <= tolerance)) / (1 + draws)),
    )


def _verdict(p_worse: float, p_better: float) -> str:
    if p_worse <= ALPHA:
        return "worse"
    return "better" if p_better <= ALPHA else "no difference shown"
