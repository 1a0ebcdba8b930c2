"""What a row of a softmax contrastive loss should predict: functions of its statistics.

With p_ij the softmax of row i and b the number of columns, each returns the loss [b] in nats. The
`weight` w_i of the noise-adaptive ones is how much of the pair's probability is taken from its own
partner and spread over the others; no gradient flows into it, and w_i = 0 is exactly `identity`.
Weights end at (b - 1) / b, where the target is uniform: beyond, the own partner would be pushed
below the others. A batch of one pair has no others, so its weight counts as 0.
"""

import jax
import jax.numpy as jnp
from jax import Array

from nlip_jax.losses.contrastive import RowStatistics


def identity(statistics: RowStatistics) -> Array:
    """Return -log p_ii: the own partner is right and every other is wrong (InfoNCE)."""
    return statistics.log_normaliser - statistics.positive


def smoothed(statistics: RowStatistics, weight: Array | float) -> Array:
    """Return the cross entropy against the target t_ii = 1 - w_i, t_ij = w_i / (b - 1).

    NLIP's noise-adaptive regularisation (arXiv 2212.07086) read as label smoothing per example.

    Args:
        statistics: of rows [b].
        weight: [b] or [] float32 in [0, 1].
    """
    weight, negatives = _weight_and_negatives(statistics, weight)
    mean_negative = (statistics.total - statistics.positive) / negatives
    return identity(statistics) + weight * (statistics.positive - mean_negative)


def mixture_likelihood(statistics: RowStatistics, weight: Array | float) -> Array:
    """Return -log[(1 - w_i) p_ii + w_i / (b - 1) (1 - p_ii)].

    The likelihood that a pair with noise w_i shows its own partner or, mismatched, any other.

    Args:
        statistics: of rows [b].
        weight: [b] or [] float32 in [0, 1].
    """
    weight, negatives = _weight_and_negatives(statistics, weight)
    spread = weight / negatives
    # The argument of the logarithm is spread + (1 - weight - spread) p_ii, a sum of terms that are
    # never negative: taken in logarithms it is safe at p_ii = 0, p_ii = 1 and weight = 0.
    kept = jnp.maximum(1.0 - weight - spread, 0.0)
    return -jnp.logaddexp(jnp.log(spread), jnp.log(kept) - identity(statistics))


def _weight_and_negatives(statistics: RowStatistics, weight: Array | float) -> tuple[Array, Array]:
    columns = jnp.maximum(statistics.columns, 1.0)
    weight = jnp.asarray(weight, jnp.float32)
    weight = jax.lax.stop_gradient(jnp.clip(weight, 0.0, 1.0 - 1.0 / columns))
    return weight, jnp.maximum(columns - 1.0, 1.0)


NOISE_ADAPTIVE = {"smoothed_targets": smoothed, "mixture_likelihood": mixture_likelihood}
