"""How well noise probabilities find the noise where it is known, and how far estimates agree."""

import numpy as np

from nlip_jax.data.source import TRUTH
from nlip_jax.evaluators.correlation import average_ranks


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


def agreement(a: np.ndarray, b: np.ndarray) -> dict[str, float]:
    """How far two estimates of the same examples agree, such as those of two episodes.

    Args:
      a: [n] noise probabilities; NaN where there is none.
      b: [n] likewise; examples without a value in both are left out.

    Returns:
      spearman and pearson correlation; same_side_share, the share of examples that both call noisy
      (0.5 and more) or both clean; kappa, the same beyond chance (Cohen, 1960); mean_difference,
      the mean of |a - b|. What is not defined is left out: correlations with a constant, kappa
      where both call all examples the same, everything without any example.
    """
    known = np.isfinite(a) & np.isfinite(b)
    a, b = (np.asarray(values[known], np.float64) for values in (a, b))
    if not len(a):
        return {}
    noisy_a, noisy_b = a >= 0.5, b >= 0.5
    same = float(np.mean(noisy_a == noisy_b))
    found = {
        "spearman": _correlation(average_ranks(a), average_ranks(b)),
        "pearson": _correlation(a, b),
        "same_side_share": same,
        "kappa": _kappa(same, noisy_a.mean(), noisy_b.mean()),
        "mean_difference": float(np.mean(np.abs(a - b))),
    }
    return {name: value for name, value in found.items() if value is not None}


def _correlation(a: np.ndarray, b: np.ndarray) -> float | None:
    """Pearson's correlation of two `[n]` float64 arrays; None where one of them is constant."""
    if np.ptp(a) == 0 or np.ptp(b) == 0:
        return None
    a, b = a - a.mean(), b - b.mean()
    return float((a @ b) / np.sqrt((a @ a) * (b @ b)))


def _kappa(same: float, share_a: float, share_b: float) -> float | None:
    """Cohen's kappa of two yes-or-no judgements, from how often they say the same and yes."""
    by_chance = share_a * share_b + (1 - share_a) * (1 - share_b)
    return None if by_chance == 1 else float((same - by_chance) / (1 - by_chance))
