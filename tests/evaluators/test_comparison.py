"""Two models on the same examples: known differences get their verdicts."""

import numpy as np
import pytest

from nlip_jax.evaluators.comparison import Measured, compare, holm
from nlip_jax.outcome import Samples

SETS = {"zero_shot/birds": "abc"}


def measured(values, *, name="zero_shot/birds/top1", groups=None, sets=SETS, **others) -> Measured:
    values = np.asarray(values, np.float64)
    return Measured(
        metrics={name: float(values.mean()), **others},
        samples={name: Samples(values=values, groups=groups)},
        sets=sets,
    )


def hits(share: float, *, n: int = 1000, seed: int = 0) -> np.ndarray:
    return (np.random.default_rng(seed).random(n) < share) * 1.0


def only(a: Measured, b: Measured, **options):
    (metric,) = compare(a, b, **({"tolerance": 0.01} | options)).metrics
    return metric


def test_a_model_is_not_worse_than_itself():
    model = measured(hits(0.6))
    metric = only(model, model, tolerance=0.0)
    assert (metric.low, metric.high, metric.p) == (0.0, 0.0, 1.0)
    assert metric.verdict == "no difference shown"
    assert not compare(model, model, tolerance=0.0).is_worse


def test_clearly_worse_and_clearly_better():
    good, bad = measured(hits(0.8)), measured(hits(0.6))  # the same draws: bad misses some more
    metric = only(good, bad)
    assert metric.verdict == "worse" and metric.p == pytest.approx(1 / 10_001)
    assert metric.low < metric.b - metric.a < metric.high < -0.1
    assert compare(good, bad, tolerance=0.01).is_worse
    assert only(bad, good).verdict == "better" and only(bad, good).p == 1.0


def test_the_tolerance_is_what_counts():
    good, bad = measured(hits(0.80)), measured(hits(0.75))
    difference = float(good.metrics["zero_shot/birds/top1"] - bad.metrics["zero_shot/birds/top1"])
    assert only(good, bad, tolerance=difference / 4).verdict == "worse"
    assert only(good, bad, tolerance=difference).verdict == "no difference shown"


def test_pairing_shows_what_two_intervals_would_not():
    a = hits(0.5)
    b = a.copy()
    b[np.flatnonzero(a)[:25]] = 0  # 2.5 points, all in one direction
    assert only(measured(a), measured(b)).verdict == "worse"
    assert only(measured(a), measured(hits(0.475, seed=9))).verdict == "no difference shown"


def test_p_is_exact_for_one_example_in_each_draw():
    """Of n examples one differs, by -1: the mean is below -tolerance iff it is drawn k times."""
    n = 50
    a, b = np.ones(n), np.ones(n)
    b[0] = 0
    metric = only(measured(a), measured(b), tolerance=1.5 / n, draws=40_000)
    not_twice = (1 - 1 / n) ** n + (1 - 1 / n) ** (n - 1)  # drawn never, or once
    assert metric.p == pytest.approx(not_twice, abs=0.01)


def test_groups_are_drawn_together():
    groups = np.repeat(np.arange(40), 5)
    a = np.ones(200)
    b = np.where(np.isin(groups, np.arange(4)), 0.0, 1.0)  # four images lost all their captions
    alone, together = (only(measured(a, groups=g), measured(b, groups=g)) for g in (None, groups))
    assert together.high - together.low > 1.8 * (alone.high - alone.low)


def test_holm_by_hand():
    assert holm([]) == []
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.9, 0.8]) == [1.0, 1.0]


def test_many_metrics_make_a_verdict_harder():
    """One metric that is just worse is not, among a hundred that are not."""
    a, b = hits(0.5), hits(0.5)
    b[np.flatnonzero(b)[:20]] = 0
    names = [f"zero_shot/birds/m{i}" for i in range(100)]

    def many(values):
        arrays = dict.fromkeys(names, a) | {names[0]: values}
        return Measured(
            metrics={name: float(v.mean()) for name, v in arrays.items()},
            samples={name: Samples(values=v) for name, v in arrays.items()},
            sets=SETS,
        )

    assert only(measured(a), measured(b)).p < 0.05
    found = compare(many(a), many(b), tolerance=0.01)
    assert not found.is_worse and found.metrics[0].p > 0.05


def test_what_is_shown_and_not_judged():
    a = measured(hits(0.5), name="retrieval/birds/median_rank", **{"caption/birds/cider": 0.9})
    b = measured(hits(0.1), name="retrieval/birds/median_rank", **{"caption/birds/cider": 0.1})
    found = compare(a, b, tolerance=0.01)
    assert [m.verdict for m in found.metrics] == ["not judged"] * 2
    assert all(m.low is m.high is m.p is None for m in found.metrics)
    assert not found.is_worse and not found.refused


@pytest.mark.parametrize(
    ("b", "shown", "line"),
    [
        (measured(hits(0.5), sets={"zero_shot/birds": "xyz"}), 0, "examples are not the same"),
        (measured(hits(0.5, n=999)), 1, "1000 values in the first, 999 in the second"),
        (measured(hits(0.5), groups=np.arange(1000) // 2), 1, "grouped in different ways"),
        (measured(np.full(1000, np.nan)), 1, "not finite"),
        (measured(hits(0.5), name="zero_shot/fish/top1"), 0, "only the first has zero_shot/birds"),
    ],
)
def test_what_is_not_of_the_same_examples_is_refused_with_a_line(b, shown, line):
    found = compare(measured(hits(0.5)), b, tolerance=0.01)
    assert line in found.refused[0]
    assert [m.verdict for m in found.metrics] == ["not judged"] * shown


@pytest.mark.parametrize(
    ("sets", "shown"),
    [
        (SETS, 1),
        (SETS | {"zero_shot/fish": "def"}, 0),
        ({"zero_shot/birds": "xyz"}, 0),
        (SETS | {"retrieval/fish": "def"}, 1),
    ],
)
def test_averages_are_of_the_same_sets(sets, shown):
    a = Measured(metrics={"zero_shot/average/headline": 0.5, "noise/auc": 0.9}, sets=SETS)
    b = Measured(metrics={"zero_shot/average/headline": 0.6, "noise/auc": 0.8}, sets=sets)
    found = compare(a, b, tolerance=0.01)
    names = [metric.name for metric in found.metrics]
    assert names == ["zero_shot/average/headline"] * shown + ["noise/auc"]
    assert any("zero_shot/average: it is of other sets" in x for x in found.refused) != bool(shown)


def test_the_same_seed_gives_the_same_numbers():
    a, b = measured(hits(0.6)), measured(hits(0.58, seed=4))
    assert only(a, b) == only(a, b) != only(a, b, seed=1)
