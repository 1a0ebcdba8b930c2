"""What a row of a contrastive loss should predict: functions of its statistics.

With p_ij the prediction of row i and b the number of its columns, each returns the loss [b] in
nats. The `weight` w_i of the noise-adaptive ones is how much of the pair's probability is taken
from its own partner and spread over the others; no gradient flows into it, and w_i = 0 is exactly
`identity` (but for roundings under a sigmoid's mixture). Weights end where the target is uniform,
(b - 1) / b with one positive: beyond, the own partner would be pushed below the others. A row
without negatives has nothing to spread to, so its weight counts as 0.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import Array

from nlip_jax.losses.engine import RowStatistics

Targets = Callable[[RowStatistics], Array]


def identity(statistics: RowStatistics) -> Array:
    """Return -log p_ii: the own partner is right and every other is wrong.

    InfoNCE under a softmax; under a sigmoid, SigLIP's sum over all columns (arXiv 2303.15343).
    With several positives each is right, with an equal share of a softmax.
    """
    return statistics.normaliser - statistics.mass * statistics.positive


def smoothed(statistics: RowStatistics, weight: Array | float) -> Array:
    """Return the cross entropy against the target t_ii = 1 - w_i, t_ij = w_i / (b - 1).

    NLIP's noise-adaptive regularisation (arXiv 2212.07086) read as label smoothing per example.

    Args:
        statistics: of rows [b].
        weight: [b] or [] float32 in [0, 1].
    """
    weight, negatives = _weight_and_negatives(statistics, weight)
    mean_negative = (statistics.total - statistics.positives * statistics.positive) / negatives
    shift = statistics.positive - mean_negative
    return identity(statistics) + statistics.mass * weight * shift


def label_smoothed(statistics: RowStatistics, share: float) -> Array:
    """Return the cross entropy against (1 - share) one-hot + share / b (ALIGN, arXiv 2102.05918).

    Args:
        statistics: of rows [b].
        share: of a target that goes to all columns alike, the own among them.
    """
    columns = jnp.maximum(statistics.columns, 1.0)
    return smoothed(statistics, share * (columns - statistics.positives) / columns)


def mixture_likelihood(statistics: RowStatistics, weight: Array | float) -> Array:
    """Return -log[(1 - w_i) p_ii + w_i / (b - 1) (1 - p_ii)], p a softmax.

    The likelihood that a pair with noise w_i shows its own partner or, mismatched, any other.

    Args:
        statistics: of rows [b] with one positive each.
        weight: [b] or [] float32 in [0, 1].
    """
    weight, negatives = _weight_and_negatives(statistics, weight)
    spread = weight / negatives
    # The argument of the logarithm is spread + (1 - weight - spread) p_ii, a sum of terms that are
    # never negative: taken in logarithms it is safe at p_ii = 0, p_ii = 1 and weight = 0.
    kept = jnp.maximum(1.0 - weight - spread, 0.0)
    return -jnp.logaddexp(jnp.log(spread), jnp.log(kept) - identity(statistics))


def sigmoid_mixture_likelihood(statistics: RowStatistics, weight: Array | float) -> Array:
    """Return -log[(1 - w_i) p_ii + w_i (1 - p_ii)] - sum_j log(1 - p_ij), p a sigmoid, j not i.

    Under a sigmoid every pair is a question of its own, and noise only concerns the row's own.

    Args:
        statistics: of rows [b] with one positive each.
        weight: [b] or [] float32 in [0, 1]; at most 1/2, where the own pair says nothing.
    """
    weight = jnp.asarray(weight, statistics.positive.dtype)
    weight = jax.lax.stop_gradient(jnp.clip(weight, 0.0, 0.5))
    wrong = jax.nn.softplus(statistics.positive)  # -log (1 - p_ii)
    right = wrong - statistics.positive  # -log p_ii
    own = jnp.logaddexp(jnp.log1p(-weight) - right, jnp.log(weight) - wrong)
    return statistics.normaliser - wrong - own


def expected(statistics: RowStatistics, target_logit: Array) -> Array:
    """Return the cross entropy against any targets: normaliser - sum_j t_ij a_ij.

    Args:
        statistics: of rows [b].
        target_logit: [b] sum_j t_ij a_ij; see `soft_targets.py`.
    """
    return statistics.normaliser - statistics.mass * target_logit


def _weight_and_negatives(statistics: RowStatistics, weight: Array | float) -> tuple[Array, Array]:
    columns = jnp.maximum(statistics.columns, 1.0)
    weight = jnp.asarray(weight, statistics.positive.dtype)
    weight = jax.lax.stop_gradient(
        jnp.clip(weight, 0.0, jnp.maximum(1.0 - statistics.positives / columns, 0.0))
    )
    return weight, jnp.maximum(columns - statistics.positives, 1.0)


# By normaliser, then by form.
NOISE_ADAPTIVE = {
    "softmax": {"smoothed_targets": smoothed, "mixture_likelihood": mixture_likelihood},
    "sigmoid": {"smoothed_targets": smoothed, "mixture_likelihood": sigmoid_mixture_likelihood},
}
