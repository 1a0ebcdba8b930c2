"""Bootstrap intervals: the quick way draws from the same distribution as the obvious one."""

import numpy as np
import pytest
from scipy import stats

from nlip_jax.evaluators.intervals import draw_means, interval, intervals, totals
from nlip_jax.evaluators.recalls import mean_of
from nlip_jax.evaluators.zero_shot import accuracies
from nlip_jax.outcome import Outcome, Samples


def obvious(samples: Samples, *, draws: int, seed: int) -> np.ndarray:
    """Means of groups drawn with replacement, one draw at a time."""
    rng = np.random.default_rng(seed)
    values = np.asarray(samples.values, np.float64)
    groups = np.arange(len(values)) if samples.groups is None else samples.groups
    members = [values[groups == group] for group in np.unique(groups)]
    picks = rng.integers(len(members), size=(draws, len(members)))
    return np.array([np.concatenate([members[i] for i in row]).mean() for row in picks])


RNG = np.random.default_rng(0)
CASES = {
    "hits": Samples(values=(RNG.random(300) < 0.3).astype(np.float64)),
    "all_different": Samples(values=RNG.normal(size=200)),
    "captions_of_images": Samples(values=(RNG.random(250) < 0.6) * 1.0, groups=np.arange(250) // 5),
    "uneven_groups": Samples(
        values=RNG.normal(size=300) + np.sort(RNG.integers(0, 40, 300)),
        groups=np.sort(RNG.integers(0, 40, 300)),
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_draws_have_the_distribution_of_the_obvious_bootstrap(name):
    samples, draws = CASES[name], 4000
    ours = draw_means(*totals(samples), draws=draws, rng=np.random.default_rng(1))
    theirs = obvious(samples, draws=draws, seed=2)
    spread = theirs.std()
    assert abs(ours.mean() - theirs.mean()) < 5 * spread * np.sqrt(2 / draws)
    assert ours.std() == pytest.approx(spread, rel=0.08)
    for share in (0.025, 0.25, 0.75, 0.975):
        assert abs(np.quantile(ours, share) - np.quantile(theirs, share)) < 0.2 * spread


def test_intervals_of_hits_are_those_of_the_binomial_distribution():
    hits = Samples(values=np.r_[np.ones(640), np.zeros(360)])
    low, high = interval(hits, draws=20_000, rng=np.random.default_rng(0))
    half = 1.96 * np.sqrt(0.64 * 0.36 / 1000)
    assert low == pytest.approx(0.64 - half, abs=2e-3)
    assert high == pytest.approx(0.64 + half, abs=2e-3)


def test_groups_widen_an_interval():
    """Five captions of an image that are all found or all missed are one piece of evidence."""
    values = np.repeat((RNG.random(100) < 0.5) * 1.0, 5)
    both = (Samples(values=values, groups=g) for g in (None, np.repeat(np.arange(100), 5)))
    alone, together = (
        np.diff(interval(samples, draws=2000, rng=np.random.default_rng(0))) for samples in both
    )
    assert together / alone == pytest.approx(np.sqrt(5), rel=0.1)


@pytest.mark.parametrize("count", [1, 2, 50])
@pytest.mark.parametrize("each", [1, 5])
def test_all_hits_and_all_misses_have_the_exact_interval_of_as_many_groups(count, each):
    groups = np.repeat(np.arange(count), each)
    for hits in (0, count):
        samples = Samples(values=np.full(count * each, hits / count), groups=groups)
        exact = stats.binomtest(hits, count).proportion_ci(0.95, method="exact")
        found = interval(samples, draws=10, rng=np.random.default_rng(0))
        assert found == pytest.approx((exact.low, exact.high), abs=1e-12)


def test_ends_of_what_cannot_vary_or_is_broken():
    rng = np.random.default_rng(0)
    one_group = Samples(values=np.array([0.0, 1.0, 1.0, 0.0]), groups=np.zeros(4, int))
    broken = (np.zeros(0), np.array([1.0, np.nan]), np.array([1.0, np.inf]))
    records = [Samples(values=np.array([value])) for value in (0.0, 1.0, 1.0)]
    one_of_each = mean_of(records, [np.array([i]) for i in range(3)])
    for samples in (one_group, one_of_each, *(Samples(values=values) for values in broken)):
        assert np.isnan(interval(samples, draws=100, rng=rng)).all()
        outcome = Outcome(metrics={"a": 0.5}, samples={"a": samples})
        assert intervals({"kind/set": outcome}, draws=100, seed=0) == {}


def spread(samples: Samples) -> float:
    return draw_means(*totals(samples), draws=4000, rng=np.random.default_rng(1)).std()


def test_uneven_classes_have_the_bootstrap_of_the_weighted_mean():
    labels = np.repeat([0, 2, 3], [40, 200, 360])
    hits = RNG.random(600) < np.array([0.9, 0, 0.5, 0.7])[labels]
    metrics, samples = accuracies(np.where(hits, 0, 3), labels)
    weight = 1 / np.bincount(labels)[labels]
    rows = np.random.default_rng(2).integers(600, size=(4000, 600))
    obvious_means = (weight * hits)[rows].sum(1) / weight[rows].sum(1)
    assert metrics["mean_per_class"] == pytest.approx((weight * hits).sum() / 3)
    assert spread(samples["mean_per_class"]) == pytest.approx(obvious_means.std(), rel=0.08)


def test_uneven_captions_have_the_bootstrap_of_both_means():
    """Image i has 1 to 9 captions: images are drawn with theirs, and both recalls counted anew."""
    owners = np.repeat(np.arange(200), RNG.integers(1, 10, 200))
    found, caption_found = RNG.random(200) < 0.9, RNG.random(len(owners)) < 0.2
    parts = [Samples(values=found * 1.0), Samples(values=caption_found * 1.0, groups=owners)]
    both = mean_of(parts, [np.arange(200), owners])
    assert both.values.mean() == pytest.approx((found.mean() + caption_found.mean()) / 2)
    rows = np.random.default_rng(2).integers(200, size=(4000, 200))
    sums, counts = np.bincount(owners, caption_found), np.bincount(owners)
    obvious_means = found[rows].mean(1) / 2 + sums[rows].sum(1) / counts[rows].sum(1) / 2
    assert spread(both) == pytest.approx(obvious_means.std(), rel=0.08)


def test_nothing_missed_in_uneven_classes_and_parts():
    _, samples = accuracies(np.zeros(100, int), np.repeat([0, 1], [10, 90]))
    parts = [Samples(values=np.ones(count)) for count in (3, 7)]
    for one in (samples["mean_per_class"], mean_of(parts, [np.arange(3), np.arange(7)])):
        low, high = interval(one, draws=100, rng=np.random.default_rng(0))
        assert 0.5 < low < high == 1


def test_every_metric_has_draws_of_its_own():
    hits = Samples(values=(RNG.random(100) < 0.5) * 1.0)
    both = Outcome(metrics={"a": 0.5, "b": 0.5, "c": 1.0}, samples={"a": hits, "b": hits})
    found = intervals({"kind/set": both}, draws=50, seed=3)
    assert set(found) == {"kind/set/a", "kind/set/b"}
    assert found["kind/set/a"] != found["kind/set/b"]
    alone = Outcome(metrics={"b": 0.5}, samples={"b": hits})
    assert intervals({"kind/set": alone}, draws=50, seed=3)["kind/set/b"] == found["kind/set/b"]
    assert intervals({"kind/set": both}, draws=50, seed=4) != found
    assert intervals({"kind/set": both}, draws=0, seed=3) == {}


@pytest.mark.parametrize("name", CASES)
def test_draws_in_chunks_are_as_many_as_asked_for(name, monkeypatch):
    monkeypatch.setattr("nlip_jax.evaluators.intervals._CHUNK_BYTES", 20_000)
    means = draw_means(*totals(CASES[name]), draws=101, rng=np.random.default_rng(0))
    assert means.shape == (101,) and np.isfinite(means).all()
