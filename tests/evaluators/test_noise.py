"""Ranking and calibration of noise probabilities, against scikit-learn and by construction."""

import numpy as np
import pytest
from scipy import stats
from sklearn.calibration import calibration_curve
from sklearn.metrics import (
    average_precision_score,
    brier_score_loss,
    cohen_kappa_score,
    mean_absolute_error,
    roc_auc_score,
)

from nlip_jax.data.source import TRUTH
from nlip_jax.evaluators.noise import (
    agreement,
    auc,
    average_precision,
    calibration,
    evaluate_noise,
)


@pytest.fixture(params=[None, 1, 0], ids=["distinct", "some ties", "many ties"])
def scored(request) -> tuple[np.ndarray, np.ndarray]:
    """(scores, is positive), positives a little higher; rounded to make ties."""
    rng = np.random.default_rng(0)
    positive = rng.random(500) < 0.3
    scores = np.clip(rng.normal(0.4, 0.2, 500) + 0.2 * positive, 0, 1)
    return (scores if request.param is None else scores.round(request.param)), positive


def test_auc_is_scikit_learns(scored):
    scores, positive = scored
    assert auc(scores[positive], scores[~positive]) == pytest.approx(
        roc_auc_score(positive, scores)
    )


def test_average_precision_is_scikit_learns(scored):
    scores, positive = scored
    assert average_precision(scores, positive) == pytest.approx(
        average_precision_score(positive, scores)
    )


def test_extremes():
    assert auc(np.array([2.0, 3]), np.array([0.0, 1])) == 1
    assert auc(np.array([0.0]), np.array([1.0])) == 0
    assert auc(np.ones(3), np.ones(5)) == 0.5
    assert average_precision(np.array([3.0, 2, 1]), np.array([True, True, False])) == 1


def test_calibration_is_a_table_of_what_happened():
    probability = np.array([0.05, 0.05, 0.1, 0.95, 1.0, 1.0, 0.55])
    outcome = np.array([False, True, False, True, True, False, True])
    table = calibration(probability, outcome)
    assert [count for _, _, count in table] == [2, 1, 1, 3]  # empty bins are left out
    np.testing.assert_allclose(
        [(mean, rate) for mean, rate, _ in table],
        [(0.05, 0.5), (0.1, 0.0), (0.55, 1.0), (2.95 / 3, 2 / 3)],
    )


def test_probabilities_that_are_right_on_average_have_no_calibration_error():
    rng = np.random.default_rng(0)
    probability = rng.random(200_000).astype(np.float32)
    truth = (rng.random(200_000) < probability).astype(np.int8)
    results = evaluate_noise(probability, truth)
    assert results["calibration_error"] < 0.01
    assert results["brier"] == pytest.approx(1 / 6, abs=0.01)  # E[p (1 - p)] of uniform p
    shifted = evaluate_noise(np.clip(probability + 0.2, 0, 1), truth)
    assert shifted["calibration_error"] > 0.1
    assert shifted["auc"] == pytest.approx(results["auc"], abs=0.02)


def test_every_kind_against_the_clean_ones():
    truth = np.repeat(np.arange(len(TRUTH), dtype=np.int8), 100)
    rng = np.random.default_rng(0)
    shift = np.array([0.0, 0.5, 0.1, 0.3])[truth]
    noise_prob = np.clip(rng.random(400) * 0.5 + shift, 0, 1)
    results = evaluate_noise(noise_prob, truth)
    for kind, name in ((1, "auc"), (2, "auc_incomplete"), (3, "auc_irrelevant")):
        chosen = (truth == 0) | (truth == kind)
        expected = roc_auc_score(truth[chosen] == kind, noise_prob[chosen])
        assert results[name] == pytest.approx(expected), name
    assert results["auc_all"] == pytest.approx(roc_auc_score(truth != 0, noise_prob))
    assert results["average_precision"] == pytest.approx(
        average_precision_score(truth != 0, noise_prob)
    )
    assert results["brier"] == pytest.approx(np.mean((noise_prob - (truth != 0)) ** 2))


def test_kinds_that_do_not_occur_are_left_out():
    noise_prob = np.array([0.1, 0.9], np.float32)
    assert "auc_incomplete" not in evaluate_noise(noise_prob, np.array([0, 1]))
    assert evaluate_noise(noise_prob, np.array([0, 1]))["auc"] == 1
    for truth in ([0, 0], [1, 1]):  # nothing to tell apart
        results = evaluate_noise(noise_prob, np.array(truth))
        assert results.keys() == {"brier", "calibration_error"}


def test_float32_probabilities_of_many_pairs_lose_nothing():
    """Sums over millions of pairs are taken in float64."""
    noise_prob = np.full(3_000_000, 0.1, np.float32)
    truth = np.zeros(3_000_000, np.int8)
    truth[:300_000] = 1
    results = evaluate_noise(noise_prob, truth)
    assert results["calibration_error"] < 1e-6
    assert results["auc"] == 0.5


def test_brier_and_calibration_curve_are_scikit_learns(scored):
    scores, positive = scored
    results = evaluate_noise(scores, positive.astype(np.int8))
    assert results["brier"] == pytest.approx(brier_score_loss(positive, scores))
    # Its bins include their upper edge, ours their lower: they agree away from the edges.
    inside = np.abs(scores * 10 - np.round(scores * 10)) > 1e-9
    if inside.any():
        rate, mean = calibration_curve(positive[inside], scores[inside], n_bins=10)
        table = calibration(scores[inside], positive[inside])
        np.testing.assert_allclose([row[:2] for row in table], np.stack([mean, rate], 1))


@pytest.mark.parametrize("digits", [None, 1, 0])
def test_agreement_is_scipys_and_scikit_learns(digits):
    rng = np.random.default_rng(0)
    a = rng.beta(0.5, 0.5, 400)
    b = np.clip(a + rng.normal(0, 0.2, 400), 0, 1)
    if digits is not None:  # many ties
        a, b = a.round(digits), b.round(digits)
    found = agreement(a, b)
    sides = a >= 0.5, b >= 0.5
    assert found == pytest.approx(
        {
            "spearman": stats.spearmanr(a, b).statistic,
            "pearson": stats.pearsonr(a, b).statistic,
            "same_side_share": np.mean(sides[0] == sides[1]),
            "kappa": cohen_kappa_score(*sides),
            "mean_difference": mean_absolute_error(a, b),
        },
        abs=1e-12,
    )
    assert agreement(b, a) == pytest.approx(found)


def test_agreement_of_an_estimate_with_itself_and_its_opposite():
    a = np.array([0.1, 0.2, 0.9, 0.6, 0.4], np.float32)
    assert agreement(a, a) == pytest.approx(
        dict.fromkeys(("spearman", "pearson", "same_side_share", "kappa"), 1.0)
        | {"mean_difference": 0.0}
    )
    opposite = agreement(a, 1 - a)
    assert opposite["spearman"] == pytest.approx(-1) and opposite["same_side_share"] == 0


def test_examples_without_a_value_in_both_are_left_out():
    a = np.array([0.1, np.nan, 0.9, 0.6, 0.4])
    b = np.array([0.3, 0.5, 0.7, np.nan, 0.2])
    both = [0, 2, 4]
    assert agreement(a, b) == agreement(a[both], b[both])
    assert agreement(np.full(3, np.nan), np.zeros(3)) == {}


def test_what_is_not_defined_is_left_out():
    constant = agreement(np.full(4, 0.2), np.array([0.1, 0.2, 0.3, 0.4]))
    assert constant == pytest.approx({"same_side_share": 1.0, "mean_difference": 0.1})
    one_side = agreement(np.array([0.1, 0.2]), np.array([0.9, 0.8]))
    assert one_side["kappa"] == 0 and one_side["same_side_share"] == 0
