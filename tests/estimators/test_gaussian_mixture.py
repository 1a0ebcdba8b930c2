import dataclasses

import jax
import numpy as np
import pytest
import reference
from jax.sharding import AxisType, Mesh

from nlip_jax.errors import RunError, UsageError
from nlip_jax.estimators import gaussian_mixture as module
from nlip_jax.estimators import histogram
from nlip_jax.estimators.gaussian_mixture import (
    GaussianMixture,
    expectation_maximisation,
    fit,
    kmeans_start,
    posterior,
)

NAMES = ("mean", "variance", "weight")


def two_modes(n=4000, noisy=0.4, gap=3.0, seed=0):
    rng = np.random.default_rng(seed)
    is_noisy = rng.random(n) < noisy
    return (2 + rng.normal(size=n) + gap * is_noisy).astype(np.float32), is_noisy


def mixture_of(mean, variance, weight, low=0.0, high=1.0):
    return GaussianMixture(*(np.float32(x) for x in (mean, variance, weight, low, high)))


def golden_parameters(golden, variant):
    order = np.argsort(golden[f"{variant}/means"])
    return [golden[f"{variant}/{name}s"][order] for name in NAMES]


def assert_parameters(mixture, expected, rtol):
    for name, value in zip(NAMES, expected, strict=True):
        np.testing.assert_allclose(getattr(mixture, name), value, rtol=rtol, err_msg=name)


def test_reference_equals_the_golden_updates(shared):
    golden = np.load(shared / "golden/gmm.npz")
    x, variant = golden["loss_norm"], "explicit_init"
    parameters = [golden[f"{variant}/{name}s_init"] for name in NAMES]
    for _ in range(25):
        parameters = reference.em_update(x, *parameters, reg_covar=1e-6)
    for name, value in zip(NAMES, parameters, strict=True):
        np.testing.assert_allclose(value, golden[f"{variant}/{name}s"], rtol=1e-9)
    np.testing.assert_allclose(
        reference.mixture_posterior(x, *parameters), golden[f"{variant}/posterior"], atol=1e-9
    )


def test_explicit_start_equals_the_golden_updates(shared):
    golden = np.load(shared / "golden/gmm.npz")
    frequency = np.histogram(golden["loss_norm"], bins=16384, range=(0, 1))[0] / 600
    start = mixture_of(*(golden[f"explicit_init/{name}s_init"] for name in NAMES))
    end = expectation_maximisation(
        frequency, start, max_iterations=25, tolerance=0.0, reg_covar=1e-6
    )
    assert end.iterations == 25
    assert_parameters(end.mixture, golden_parameters(golden, "explicit_init"), rtol=1e-4)
    log_likelihood = np.sum(frequency * end.log_density)
    np.testing.assert_allclose(log_likelihood, golden["explicit_init/lower_bound"], atol=1e-4)


def test_fit_reaches_the_golden_fixed_point(shared):
    golden = np.load(shared / "golden/gmm.npz")
    losses = golden["loss_raw"].astype(np.float32)
    found = fit(losses, clip_percentiles=(0, 100), tolerance=1e-8, reg_covar=1e-6)
    assert found.converged
    assert_parameters(found.mixture, golden_parameters(golden, "fixed_point"), rtol=1e-4)
    unforced = posterior(found.mixture, losses, monotone=False)
    np.testing.assert_allclose(unforced, golden["fixed_point/posterior_high_mean"], atol=1e-4)


@pytest.mark.parametrize("variant", ["default", "dividemix"])
def test_fits_that_stop_early_are_near_the_golden_ones(shared, variant):
    golden = np.load(shared / "golden/gmm.npz")
    settings = {
        "default": {"tolerance": 1e-3, "max_iterations": 100, "reg_covar": 1e-6},
        "dividemix": {"tolerance": 1e-2, "max_iterations": 10, "reg_covar": 5e-4},
    }
    losses = golden["loss_raw"].astype(np.float32)
    found = fit(losses, clip_percentiles=(0, 100), **settings[variant])
    assert_parameters(found.mixture, golden_parameters(golden, variant), rtol=1e-2)
    assert found.iterations == golden[f"{variant}/n_iter"]


def test_fit_equals_scikit_learn_from_the_same_start():
    sklearn_mixture = pytest.importorskip("sklearn.mixture")
    losses, _ = two_modes(gap=2.0)
    found = fit(losses)
    low, high = np.percentile(losses.astype(np.float64), (0.1, 99.9))
    x = (np.clip(losses, low, high) - low) / (high - low)
    start = kmeans_start(found.counts / found.counts.sum(), low=low, high=high, reg_covar=5e-4)
    theirs = sklearn_mixture.GaussianMixture(
        n_components=2,
        reg_covar=5e-4,
        tol=1e-6,
        max_iter=200,
        means_init=start.mean[:, None].astype(np.float64),
        precisions_init=1 / start.variance.astype(np.float64).reshape(2, 1, 1),
        weights_init=start.weight / start.weight.sum(dtype=np.float64),
    ).fit(x[:, None])
    assert found.converged
    assert abs(found.iterations - theirs.n_iter_) <= 1
    assert_parameters(
        found.mixture, (theirs.means_[:, 0], theirs.covariances_[:, 0, 0], theirs.weights_), 1e-3
    )
    np.testing.assert_allclose(found.log_likelihood, theirs.lower_bound_, atol=1e-4)
    np.testing.assert_allclose(
        posterior(found.mixture, losses, monotone=False),
        theirs.predict_proba(x[:, None])[:, 1],
        atol=1e-3,
    )


@pytest.mark.parametrize("devices", [1, 2, 3, 8])
def test_every_mesh_and_chunk_size_gives_the_same(devices, monkeypatch):
    losses, _ = two_modes()
    plain = fit(losses)
    plain_posterior = posterior(plain.mixture, losses)
    monkeypatch.setattr(histogram, "MAX_CHUNK", 256)
    mesh = Mesh(np.array(jax.devices()[:devices]), ("data",), axis_types=(AxisType.Auto,))
    with jax.transfer_guard("disallow"):
        found = fit([losses[:1234], losses[1234:]], mesh=mesh)
        probability = posterior(found.mixture, losses, mesh=mesh)
    np.testing.assert_array_equal(found.counts, plain.counts)
    for field in dataclasses.fields(GaussianMixture):
        expected = getattr(plain.mixture, field.name)
        np.testing.assert_array_equal(getattr(found.mixture, field.name), expected)
    np.testing.assert_allclose(probability, plain_posterior, atol=1e-6)


def test_posterior_equals_the_reference():
    losses, _ = two_modes(500)
    mixture = mixture_of([0.3, 0.6], [0.01, 0.03], [0.7, 0.3], low=0.5, high=6.5)
    x = (np.clip(losses.astype(np.float64), 0.5, 6.5) - 0.5) / 6
    expected = reference.mixture_posterior(x, [0.3, 0.6], np.array([0.01, 0.03]), [0.7, 0.3])[:, 1]
    found = posterior(mixture, losses, monotone=False)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, expected, atol=1e-5)


@pytest.mark.parametrize("variance", [(0.005, 0.03), (0.03, 0.005), (0.01, 0.01)])
def test_posterior_never_falls_while_the_loss_grows(variance):
    mixture = mixture_of([0.3, 0.6], variance, [0.6, 0.4])
    losses = np.linspace(-0.2, 1.2, 3000).astype(np.float32)
    forced = posterior(mixture, losses)
    free = posterior(mixture, losses, monotone=False)
    assert np.diff(forced).min() >= -1e-6
    assert (np.diff(free).min() < -1e-4) == (variance[0] != variance[1])
    between = (losses >= 0.3) & (losses <= 0.6)
    np.testing.assert_allclose(forced[between], free[between], atol=1e-6)
    at_clean = posterior(mixture, np.float32([0.3]))
    np.testing.assert_allclose(forced[losses < 0.3], at_clean[0], atol=1e-6)


def test_posterior_tells_noisy_pairs():
    losses, is_noisy = two_modes(gap=5.0)
    probability = posterior(fit(losses).mixture, losses)
    assert np.mean((probability > 0.5) == is_noisy) > 0.98


def test_losses_that_are_not_finite_do_not_poison():
    losses, _ = two_modes()
    bad = np.concatenate([losses, np.float32([np.nan, np.inf, -np.inf])])
    clean, found = fit(losses), fit(bad)
    assert (found.num_losses, found.num_non_finite) == (4000, 3)
    np.testing.assert_array_equal(found.counts, clean.counts)
    nan, inf, minus_inf = posterior(found.mixture, bad)[-3:]
    assert nan == 0
    assert inf > 0.9
    assert minus_inf < 0.2


def test_an_outlier_does_not_squeeze_the_scale():
    losses, _ = two_modes()
    plain = fit(losses).mixture
    losses[17] = 1e30
    found = fit(losses).mixture
    np.testing.assert_allclose(found.high, plain.high, atol=0.1)
    np.testing.assert_allclose(found.mean, plain.mean, atol=0.02)


def test_equal_losses_are_no_noise():
    losses = np.full(50, 3.25, np.float32)
    losses[7] = np.nan
    found = fit(losses)
    assert found.degenerate and not found.converged
    np.testing.assert_array_equal(posterior(found.mixture, np.float32([0, 3.25, 9, np.inf])), 0)


def test_one_mode_gives_finite_ordered_components():
    found = fit(np.random.default_rng(0).normal(size=2000).astype(np.float32))
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(found.mixture))
    assert found.mixture.mean[0] < found.mixture.mean[1]


def test_two_losses_are_enough():
    found = fit(np.float32([1.0, 2.0]))
    np.testing.assert_allclose(found.mixture.weight, 0.5)
    assert np.array_equal(posterior(found.mixture, np.float32([1, 2])) > 0.5, [False, True])


@pytest.mark.parametrize("losses", [[], [1.0], [np.nan] * 3, [1.0, np.inf]])
def test_too_few_finite_losses_end_the_run(losses):
    with pytest.raises(RunError, match="at least 2 finite losses"):
        fit(np.array(losses, np.float32))


@pytest.mark.parametrize("percentiles", [(50, 50), (-1, 99), (0, 101)])
def test_percentiles_out_of_order_are_refused(percentiles):
    with pytest.raises(UsageError, match="clip_percentiles"):
        fit(np.float32([1, 2, 3]), clip_percentiles=percentiles)


def test_every_size_of_update_is_one_compile():
    losses, _ = two_modes()
    fit(losses)
    compiled = module._expectation_maximisation._cache_size()
    fit(losses + 1, max_iterations=7, tolerance=1e-3, reg_covar=1e-5)
    assert module._expectation_maximisation._cache_size() == compiled
