"""How well the noise probabilities find the noise, where it was planted and is known."""

import numpy as np

from nlip_jax.data.source import TRUTH


def evaluate_noise(
    noise_prob: np.ndarray, truth: np.ndarray, *, bins: int = 10
) -> dict[str, float]:
    """Ranking and calibration of noise probabilities.

    Args:
      noise_prob: [n] in [0, 1].
      truth: [n] index into `TRUTH`.
      bins: of the calibration error.

    Returns:
      auc (mismatched against clean), auc_incomplete, auc_irrelevant (each against clean), auc_all
      (anything against clean), and of "anything": average_precision, brier and calibration_error.
      Kinds that do not occur are left out.
    """
    clean = truth == TRUTH.index("clean")
    noisy = ~clean
    names = {kind: f"auc_{kind}" for kind in TRUTH[1:]} | {"mismatched": "auc"}
    results = {}
    for kind in TRUTH[1:]:
        members = truth == TRUTH.index(kind)
        if members.any() and clean.any():
            results[names[kind]] = auc(noise_prob[members], noise_prob[clean])
    if noisy.any() and clean.any():
        results["auc_all"] = auc(noise_prob[noisy], noise_prob[clean])
        results["average_precision"] = average_precision(noise_prob, noisy)
    results["brier"] = float(np.mean((noise_prob - noisy) ** 2))
    table = calibration(noise_prob, noisy, bins=bins)
    results["calibration_error"] = float(
        sum(count * abs(mean - rate) for mean, rate, count in table) / len(noise_prob)
    )
    return results


def auc(positive: np.ndarray, negative: np.ndarray) -> float:
    """Probability that a positive scores above a negative; ties count half."""
    ordered = np.sort(negative)
    below = np.searchsorted(ordered, positive, side="left")
    up_to = np.searchsorted(ordered, positive, side="right")
    return float((below + up_to).mean(dtype=np.float64) / (2 * len(negative)))


def average_precision(scores: np.ndarray, positive: np.ndarray) -> float:
    """Area under the precision-recall steps; equal scores share one threshold."""
    order = np.argsort(-scores, kind="stable")
    hits = np.cumsum(positive[order], dtype=np.int64)
    last_of_tie = np.append(np.flatnonzero(np.diff(scores[order])), len(scores) - 1)
    precision = hits[last_of_tie] / (last_of_tie + 1)
    gained = np.diff(hits[last_of_tie], prepend=0)
    return float((precision * gained).sum() / hits[-1])


def calibration(
    probability: np.ndarray, outcome: np.ndarray, *, bins: int = 10
) -> list[tuple[float, float, int]]:
    """(mean probability, observed rate, count) of equal-width bins that are not empty."""
    place = np.minimum((probability * bins).astype(np.int64), bins - 1)
    return [
        (
            float(probability[place == b].mean(dtype=np.float64)),
            float(outcome[place == b].mean()),
            int((place == b).sum()),
        )
        for b in range(bins)
        if (place == b).any()
    ]
