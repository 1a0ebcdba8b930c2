"""Bootstrap intervals: the quick way draws from the same distribution as the obvious one."""

import numpy as np
import pytest

from nlip_jax.evaluators.intervals import draw_means, interval, intervals, totals
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


def test_ends_of_what_cannot_vary_or_is_broken():
    rng = np.random.default_rng(0)
    assert interval(Samples(values=np.ones(50)), draws=100, rng=rng) == (1.0, 1.0)
    one_group = Samples(values=np.array([0.0, 1.0, 1.0, 0.0]), groups=np.zeros(4, int))
    assert interval(one_group, draws=100, rng=rng) == (0.5, 0.5)
    for values in (np.zeros(0), np.array([1.0, np.nan]), np.array([1.0, np.inf])):
        assert np.isnan(interval(Samples(values=values), draws=100, rng=rng)).all()


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
