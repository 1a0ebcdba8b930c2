"""The noise mixture against scikit-learn's: how much faster, and how near."""

import time

import numpy as np

from nlip_jax.errors import UsageError
from nlip_jax.estimators import gaussian_mixture

TOLERANCE = 1e-6
MAX_ITERATIONS = 200
REG_COVAR = 5e-4


def run(num_losses: int = 26_000_000, seed: int = 0) -> dict[str, float]:
    """Fit both to the same losses: 60 % from N(2, 1) and 40 % from N(4, 1), in nats.

    scikit-learn gets the losses as our clipping normalises them, in float64: given float32 it sums
    in float32, which stops counting at 16.8 million. The times are of the fit and the
    posterior of every loss, without compilation; on our side with clipping and normalising.

    Args:
        num_losses: how many.
        seed: of the losses.

    Returns:
        Metrics by name. The parameter error is the largest relative one of means, standard
        deviations and weights; the posterior error is the largest difference, unforced.

    Raises:
        UsageError: scikit-learn is missing.
    """
    try:
        from sklearn import mixture as sklearn_mixture
    except ImportError as error:
        raise UsageError(
            "this benchmark compares with scikit-learn, which is missing: "
            "pip install nlip_jax[eval]"
        ) from error

    losses = two_modes(num_losses, seed)
    _fit_ours(losses)
    ours, seconds_ours = _timed(_fit_ours, losses)
    unforced = gaussian_mixture.posterior(ours, losses, monotone=False)

    clipped = np.clip(losses, ours.low, ours.high)
    samples = ((clipped - ours.low) / (ours.high - ours.low)).astype(np.float64)[:, None]
    model = sklearn_mixture.GaussianMixture(
        n_components=2,
        reg_covar=REG_COVAR,
        tol=TOLERANCE,
        max_iter=MAX_ITERATIONS,
        random_state=0,
    )
    probability, seconds_sklearn = _timed(lambda: model.fit(samples).predict_proba(samples))

    order = np.argsort(model.means_[:, 0])
    theirs = np.stack([model.means_[:, 0], np.sqrt(model.covariances_[:, 0, 0]), model.weights_])
    theirs = theirs[:, order]
    mine = np.stack([ours.mean, np.sqrt(ours.variance), ours.weight])
    return {
        "mixture/time_ratio_vs_sklearn": seconds_ours / seconds_sklearn,
        "mixture/parameter_error": float(np.max(np.abs(mine / theirs - 1))),
        "mixture/posterior_error": float(np.max(np.abs(unforced - probability[:, order[1]]))),
        "mixture/seconds_ours": seconds_ours,
        "mixture/seconds_sklearn": seconds_sklearn,
    }


def two_modes(num_losses: int, seed: int) -> np.ndarray:
    """Return [n] float32 losses in nats, 40 % of them two standard deviations higher."""
    rng = np.random.default_rng(seed)
    mean = np.where(rng.random(num_losses) < 0.4, np.float32(4), np.float32(2))
    return mean + rng.standard_normal(num_losses, dtype=np.float32)


def _fit_ours(losses: np.ndarray) -> gaussian_mixture.GaussianMixture:
    found = gaussian_mixture.fit(
        losses, max_iterations=MAX_ITERATIONS, tolerance=TOLERANCE, reg_covar=REG_COVAR
    )
    gaussian_mixture.posterior(found.mixture, losses)
    return found.mixture


def _timed(function, *arguments):
    start = time.perf_counter()
    result = function(*arguments)
    return result, time.perf_counter() - start
