"""Noise probabilities from the losses of all pairs: a mixture of two Gaussians in one dimension.

Networks fit clean pairs first, so early in training the losses of clean and of noisy pairs form two
modes (NLIP, arXiv 2212.07086; DivideMix, arXiv 2002.07394). EM runs over a fine histogram instead
of the losses: 16,384 bins hold what billions of losses say about five numbers.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from nlip_jax.errors import RunError, UsageError
from nlip_jax.estimators.histogram import histogram, local_mesh, map_chunks, percentiles

# scikit-learn's: k-means stops when the means' squared movement, over the variance, is below.
KMEANS_TOLERANCE = 1e-4


@flax.struct.dataclass
class GaussianMixture:
    """Two Gaussians over normalised losses in the order of their means: 0 is clean, 1 is noisy.

    Attributes:
        mean: [2] float32, in units of the normalised loss.
        variance: [2] float32, in those units squared.
        weight: [2] float32, sums to 1.
        low: [] float32, the loss in nats that becomes 0; lower ones are clipped to it.
        high: [] float32, the loss in nats that becomes 1; higher ones are clipped to it.
    """

    mean: Array
    variance: Array
    weight: Array
    low: Array
    high: Array


@dataclass(frozen=True)
class FitResult:
    """A fitted mixture and how it came about.

    Attributes:
        mixture: its leaves are NumPy arrays.
        log_likelihood: mean log density of the normalised losses, before the last update.
        iterations: number of EM updates.
        converged: the last update changed `log_likelihood` by less than the tolerance.
        degenerate: all losses are equal after clipping, so no pair can be told from the others: EM
            did not run and the posterior is 0 everywhere.
        num_losses: finite losses, all of which take part.
        num_non_finite: losses left out, being NaN or infinite.
        counts: [num_bins] int64 histogram of the clipped losses.
        edges: [num_bins + 1] float64 edges of its bins in nats.
    """

    mixture: GaussianMixture
    log_likelihood: float
    iterations: int
    converged: bool
    degenerate: bool
    num_losses: int
    num_non_finite: int
    counts: np.ndarray
    edges: np.ndarray


@flax.struct.dataclass
class EMState:
    """Where EM over a histogram stands.

    Attributes:
        mixture: after `iterations` updates.
        log_density: [k] float32 of the bins, under the mixture before the last update.
        change: [] float32, by how much the last mean log-likelihood differed from the one before.
        iterations: [] int32.
    """

    mixture: GaussianMixture
    log_density: Array
    change: Array
    iterations: Array


def fit(
    losses: np.ndarray | Sequence[np.ndarray],
    *,
    clip_percentiles: tuple[float, float] = (0.1, 99.9),
    num_bins: int = 16384,
    max_iterations: int = 200,
    tolerance: float = 1e-6,
    reg_covar: float = 5e-4,
    mesh: Mesh | None = None,
) -> FitResult:
    """Clip the losses, normalise them to [0, 1], count them in bins and run EM over the bins.

    Starts from k-means (`kmeans_start`) and stops by the rule of scikit-learn's GaussianMixture.
    Both matter for agreeing with it: where the modes overlap EM is slow, and at a tolerance of 1e-6
    it stops far from its fixed point, at a place that depends on where it started.

    Args:
        losses: [n] nats, this host's share, in one array or several.
        clip_percentiles: losses beyond these percentiles count as if they were there.
        num_bins: bins of the histogram.
        max_iterations: most updates of EM.
        tolerance: stop after an update that changed the mean log-likelihood by less, in nats.
        reg_covar: added to the variances, in squared units of the normalised loss.
        mesh: whose devices count the losses; all devices when left out. In a run of several
            processes all call this together.

    Raises:
        UsageError: the percentiles are not in order.
        RunError: fewer than two losses are finite.
    """
    if not 0 <= clip_percentiles[0] < clip_percentiles[1] <= 100:
        raise UsageError(
            f"clip_percentiles={clip_percentiles} must be (low, high) with 0 <= low < high <= 100"
        )
    losses = losses if isinstance(losses, np.ndarray) else np.concatenate(losses)
    bounds = percentiles(losses, clip_percentiles, mesh=mesh)
    if bounds.num_finite < 2:
        raise RunError(
            f"a mixture needs at least 2 finite losses, but {bounds.num_finite} are finite and "
            f"{bounds.num_non_finite} NaN or infinite: check the model that computed them"
        )
    low, high = bounds.values.astype(np.float32)
    counts = histogram(losses, low=low, high=high, num_bins=num_bins, mesh=mesh)
    frequency = counts / counts.sum()
    degenerate = bool(low == high)
    if degenerate:
        start = _mixture(mean=[0, 1], variance=[1, 1], weight=[1, 0], low=low, high=high)
        max_iterations = 0
    else:
        start = kmeans_start(frequency, low=low, high=high, reg_covar=reg_covar)
    end = expectation_maximisation(
        frequency,
        start,
        max_iterations=max_iterations,
        tolerance=tolerance,
        reg_covar=reg_covar,
    )
    return FitResult(
        mixture=end.mixture,
        log_likelihood=float(np.sum(frequency * end.log_density)),
        iterations=int(end.iterations),
        converged=bool(abs(end.change) < tolerance),
        degenerate=degenerate,
        num_losses=bounds.num_finite,
        num_non_finite=bounds.num_non_finite,
        counts=counts,
        edges=np.linspace(low, high, num_bins + 1, dtype=np.float64),
    )


def posterior(
    mixture: GaussianMixture,
    losses: np.ndarray,
    *,
    monotone: bool = True,
    mesh: Mesh | None = None,
) -> np.ndarray:
    """Return the probability of the component with the larger mean: of being noisy.

    Args:
        mixture: of `fit`; the losses are clipped and normalised as it did.
        losses: [n] nats, this host's share. NaN says nothing about its pair and gets 0.
        monotone: never let the probability fall while the loss grows. Where variances differ, the
            wider component wins at both ends; so losses below the clean mean get the clean mean's
            probability, and those above the point where it would fall again get that point's.
        mesh: whose devices compute; all devices when left out.

    Returns:
        [n] float32 in [0, 1].
    """
    mesh = local_mesh(mesh)
    mixture = jax.device_put(jax.device_get(mixture), NamedSharding(mesh, P()))
    compute = partial(_posterior, mixture=mixture, monotone=monotone)
    result = np.empty(len(losses), np.float32)
    start = 0
    for chunk in map_chunks(compute, losses, mesh):
        result[start : start + len(chunk)] = chunk[: len(losses) - start]
        start += len(chunk)
    return result


def kmeans_start(
    frequency: np.ndarray, *, low: float, high: float, reg_covar: float
) -> GaussianMixture:
    """Split a histogram in two by k-means from its ends, and describe both parts.

    Args:
        frequency: [k] of equal bins over [0, 1], sums to 1; the first and the last are not empty.
        low: of the mixture.
        high: of the mixture.
        reg_covar: added to the variances.
    """
    centre = _centres(len(frequency))
    spread = np.sum(frequency * (centre - np.sum(frequency * centre)) ** 2)
    mean, moved = np.array([0.0, 1.0]), np.inf
    while moved > KMEANS_TOLERANCE * spread:
        before, mean = mean, _split(frequency, centre, mean)[1]
        moved = np.sum((mean - before) ** 2)
    part, mean = _split(frequency, centre, mean)
    weight = part.sum(axis=1)
    variance = np.sum(part * (centre - mean[:, None]) ** 2, axis=1) / weight + reg_covar
    return _mixture(mean=mean, variance=variance, weight=weight, low=low, high=high)


def expectation_maximisation(
    frequency: np.ndarray,
    start: GaussianMixture,
    *,
    max_iterations: int,
    tolerance: float,
    reg_covar: float,
) -> EMState:
    """Run EM over a histogram, all updates in one compiled loop.

    Args:
        frequency: [k] of equal bins over [0, 1], sums to 1.
        start: where the first update starts.
        max_iterations: most updates.
        tolerance: stop after an update that changed the mean log-likelihood by less, in nats.
        reg_covar: added to the variances.

    Returns:
        The last state, with NumPy leaves and the components in the order of their means.
    """
    numbers = np.float32(tolerance), np.float32(reg_covar), np.int32(max_iterations)
    arguments = jax.device_put((frequency.astype(np.float32), start, *numbers))
    return jax.device_get(_expectation_maximisation(*arguments))


@jax.jit
def _expectation_maximisation(
    frequency: Array, start: GaussianMixture, tolerance: Array, reg_covar: Array, most: Array
) -> EMState:
    centre = jnp.asarray(_centres(len(frequency)), jnp.float32)

    def going(state: EMState) -> Array:
        return (state.iterations < most) & ~(jnp.abs(state.change) < tolerance)

    def update(state: EMState) -> EMState:
        joint = _log_joint(state.mixture, centre)
        log_density = jnp.logaddexp(*joint)
        part = frequency * jnp.exp(joint - log_density)
        weight = jnp.maximum(jnp.sum(part, axis=1), jnp.finfo(jnp.float32).tiny)
        mean = jnp.sum(part * centre, axis=1) / weight
        variance = jnp.sum(part * (centre - mean[:, None]) ** 2, axis=1) / weight + reg_covar
        # The mean of differences resolves changes that a difference of float32 means would not.
        change = jnp.sum(frequency * (log_density - state.log_density))
        return EMState(
            mixture=state.mixture.replace(mean=mean, variance=variance, weight=weight),
            log_density=log_density,
            change=jnp.where(state.iterations == 0, jnp.inf, change),
            iterations=state.iterations + 1,
        )

    state = EMState(
        mixture=start,
        log_density=jnp.zeros_like(frequency),
        change=jnp.float32(jnp.inf),
        iterations=jnp.int32(0),
    )
    state = jax.lax.while_loop(going, update, state)
    order = jnp.argsort(state.mixture.mean)
    mixture = state.mixture.replace(
        mean=state.mixture.mean[order],
        variance=state.mixture.variance[order],
        weight=state.mixture.weight[order],
    )
    return state.replace(mixture=mixture)


@partial(jax.jit, static_argnames="monotone")
def _posterior(losses: Array, mixture: GaussianMixture, *, monotone: bool) -> Array:
    span = mixture.high - mixture.low
    x = jnp.clip(losses, mixture.low, mixture.high) - mixture.low
    x = x / jnp.where(span > 0, span, 1)
    if monotone:
        mean, variance = mixture.mean, mixture.variance
        turn = (mean[0] * variance[1] - mean[1] * variance[0]) / (variance[1] - variance[0])
        x = jnp.clip(x, mean[0], jnp.where(variance[1] < variance[0], turn, jnp.inf))
    clean, noisy = _log_joint(mixture, x)
    return jnp.where(jnp.isnan(losses), 0.0, jax.nn.sigmoid(noisy - clean))


def _log_joint(mixture: GaussianMixture, x: Array) -> Array:
    """Return [2, ...] log(weight * density) of both components at `x`, normalised losses."""
    mean, variance, weight = (
        leaf.reshape(2, *[1] * x.ndim) for leaf in (mixture.mean, mixture.variance, mixture.weight)
    )
    square = (x - mean) ** 2 / variance
    return jnp.log(weight) - 0.5 * (square + jnp.log(2 * jnp.pi * variance))


def _split(
    frequency: np.ndarray, centre: np.ndarray, mean: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Give every bin to the nearer mean: the frequencies of both parts [2, k] and their means."""
    is_high = centre > np.mean(mean)
    part = np.stack([frequency * ~is_high, frequency * is_high])
    return part, part @ centre / part.sum(axis=1)


def _centres(num_bins: int) -> np.ndarray:
    return (np.arange(num_bins) + 0.5) / num_bins


def _mixture(**parameters) -> GaussianMixture:
    return GaussianMixture(
        **{name: np.asarray(value, np.float32) for name, value in parameters.items()}
    )
