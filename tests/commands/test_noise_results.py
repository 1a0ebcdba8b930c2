"""What a run reports of its noise estimates, with and without planted noise."""

from types import SimpleNamespace

import numpy as np
import pytest
from scipy import stats

from nlip_jax.commands.train_command import noise_results

RNG = np.random.default_rng(0)
ESTIMATES = {1: RNG.random(50), 2: RNG.random(50), 3: RNG.random(50)}
ESTIMATES[2][4] = ESTIMATES[3][4] = np.nan


def results(*, episode: int, truth: np.ndarray | None, columns=("noise_prob",)) -> dict:
    def column(name: str, version: int):
        values = ESTIMATES[version]
        losses = np.where(np.isnan(values), np.nan, 1.0)
        return SimpleNamespace(read=lambda: values if name == "noise_prob" else losses)

    run = SimpleNamespace(
        source=SimpleNamespace(truth=lambda: truth),
        method=SimpleNamespace(columns=columns, version=lambda name, episode: episode),
        column=column,
    )
    return noise_results(run, SimpleNamespace(episode=np.int32(episode)))


def test_the_last_two_estimates_are_compared_without_planted_noise_too():
    found = results(episode=3, truth=None)
    assert found.keys() == {
        f"noise/agreement_{name}"
        for name in ("spearman", "pearson", "same_side_share", "kappa", "mean_difference")
    }
    known = np.isfinite(ESTIMATES[2])
    expected = stats.spearmanr(ESTIMATES[2][known], ESTIMATES[3][known]).statistic
    assert found["noise/agreement_spearman"] == pytest.approx(expected)


def test_one_estimate_agrees_with_nothing():
    truth = np.arange(50, dtype=np.int8) % 2
    found = results(episode=1, truth=truth)
    assert "noise/auc" in found and not [name for name in found if "agreement" in name]
    assert results(episode=1, truth=None) == {}


def test_truth_and_agreement_stand_beside_each_other():
    truth = np.arange(50, dtype=np.int8) % 2
    found = results(episode=2, truth=truth)
    assert {"noise/auc", "noise/agreement_kappa"} <= found.keys()
    assert all(np.isfinite(value) for value in found.values())


def test_no_estimate_or_a_method_without_any():
    truth = np.zeros(50, np.int8)
    assert results(episode=0, truth=truth) == {}
    assert results(episode=2, truth=truth, columns=()) == {}
