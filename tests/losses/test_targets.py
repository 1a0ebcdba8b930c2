"""What a row should predict: limits, bounds and gradients, beside the cases of `test_pairs.py`."""

from functools import partial

import cases
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import reference

from nlip_jax.losses import targets
from nlip_jax.losses.engine import Engine, RowStatistics
from nlip_jax.losses.sides import Affine, Side
from nlip_jax.losses.targets import NOISE_ADAPTIVE, identity, smoothed

BOTH = [(n, form) for n in NOISE_ADAPTIVE for form in NOISE_ADAPTIVE[n]]
FORMS = pytest.mark.parametrize(("normaliser", "form"), BOTH)


@partial(jax.jit, static_argnames="normaliser")
def statistics_of(logits, normaliser="softmax"):
    """Of the rows of any matrix, which is its own product with the unit vectors."""
    rows, columns = Side(jnp.asarray(logits)), Side(jnp.eye(len(logits)))
    problem = cases.Case(normaliser=normaliser).problem
    return Engine().pairs(problem, rows, columns, Affine(scale=1.0, bias=0.0))[0]


def logits_and_weight(b=6, seed=0):
    rng = np.random.default_rng(seed)
    logits = (3 * rng.normal(size=(b, b))).astype(np.float32)
    return logits, rng.random(b).astype(np.float32) * 0.7


@FORMS
def test_no_weight_is_identity(normaliser, form):
    """Bit for bit, but for the sigmoid's mixture, which takes the own pair out and back in."""
    logits, _ = logits_and_weight(b=8)
    logits *= 20  # also where exp(-loss) underflows

    @partial(jax.jit, static_argnums=0)
    def loss_and_gradient(form, logits):
        loss, pull_back = jax.vjp(lambda x: form(statistics_of(x, normaliser)), logits)
        return loss, *pull_back(jnp.ones_like(loss))

    adaptive = partial(NOISE_ADAPTIVE[normaliser][form], weight=0.0)
    loss, gradient = loss_and_gradient(adaptive, logits)
    plain, plain_gradient = loss_and_gradient(identity, logits)
    exact = (normaliser, form) != ("sigmoid", "mixture_likelihood")
    np.testing.assert_allclose(loss, plain, rtol=0 if exact else 1e-6)
    np.testing.assert_allclose(gradient, plain_gradient, atol=1e-6)


@pytest.mark.parametrize("form", NOISE_ADAPTIVE["softmax"])
def test_uniform_logits_cost_log_b(form):
    weight = jnp.array([0.0, 0.3, 0.5, 0.7, 1.0])
    loss = NOISE_ADAPTIVE["softmax"][form](statistics_of(jnp.full((5, 5), 2.5)), weight)
    np.testing.assert_allclose(loss, np.log(5), rtol=1e-6)


def test_gradient_of_smoothed_is_probability_minus_target():
    logits, weight = logits_and_weight()
    gradient = jax.jit(jax.grad(lambda x: smoothed(statistics_of(x), weight).sum()))(logits)
    probability = np.exp([reference.log_softmax(row) for row in logits])
    np.testing.assert_allclose(np.diag(gradient), np.diag(probability) - (1 - weight), atol=1e-6)


def test_label_smoothing_mixes_with_the_uniform_target():
    """TensorFlow's convention, which ALIGN's 0.1 refers to: the own class has a share of it too."""
    logits, _ = logits_and_weight()
    found = targets.label_smoothed(statistics_of(logits), 0.1)
    for row, own, loss in zip(logits, range(6), found, strict=True):
        target = 0.9 * np.eye(6)[own] + 0.1 / 6
        np.testing.assert_allclose(loss, -target @ reference.log_softmax(row), rtol=1e-5)


@FORMS
def test_sure_rows_have_finite_values_and_gradients(normaliser, form):
    def loss(logits, weight):
        return NOISE_ADAPTIVE[normaliser][form](statistics_of(logits, normaliser), weight)[0]

    gap, weight = np.meshgrid([-1e4, -90, 0, 1e-4, 90, 1e4], [0, 1e-6, 0.5, 0.99, 1])
    logits = gap.reshape(-1, 1, 1) * np.eye(3)
    value_and_gradient = jax.jit(jax.vmap(jax.value_and_grad(loss)))
    value, gradient = value_and_gradient(logits, weight.reshape(-1))
    assert value.shape == (30,)
    assert np.isfinite(value).all() and np.isfinite(gradient).all()


def test_mixture_likelihood_of_impossible_pairs_is_bounded():
    statistics = statistics_of(-200 * jnp.eye(4))
    found = targets.mixture_likelihood(statistics, 0.3)
    np.testing.assert_allclose(found, np.log(3 / 0.3), rtol=1e-5)
    statistics = statistics_of(-200 * jnp.eye(4), "sigmoid")
    found = targets.sigmoid_mixture_likelihood(statistics, 0.3)
    np.testing.assert_allclose(found, np.log(1 / 0.3) + 3 * np.log(2), rtol=1e-5)


@FORMS
def test_no_gradient_flows_into_the_weight(normaliser, form):
    logits, weight = logits_and_weight()
    statistics = statistics_of(logits, normaliser)
    loss = NOISE_ADAPTIVE[normaliser][form]
    gradient = jax.grad(lambda w: loss(statistics, w).sum())(jnp.asarray(weight))
    np.testing.assert_array_equal(gradient, 0.0)


@pytest.mark.parametrize("form", NOISE_ADAPTIVE["softmax"])
def test_one_pair_costs_nothing(form):
    value, gradient = jax.value_and_grad(
        lambda x: NOISE_ADAPTIVE["softmax"][form](statistics_of(x), jnp.array([0.5])).sum()
    )(jnp.array([[3.0]]))
    assert value == 0.0
    np.testing.assert_array_equal(gradient, 0.0)


@pytest.mark.parametrize("form", NOISE_ADAPTIVE["softmax"])
def test_statistics_of_any_engine_will_do(form):
    """A million columns whose logits nobody holds, all 0 but the positive."""
    columns, positive, weight = 1e6, 5.0, 0.25
    log_normaliser = np.log(columns - 1 + np.exp(positive))
    one = jnp.ones(1)
    statistics = RowStatistics(
        normaliser=one * log_normaliser,
        positive=one * positive,
        total=one * positive,
        columns=one * columns,
        positives=one,
        mass=one,
        duplicates=0 * one,
    )
    own = np.exp(positive - log_normaliser)
    expected = {
        "smoothed_targets": log_normaliser - (1 - weight) * positive,
        "mixture_likelihood": -np.log((1 - weight) * own + weight / (columns - 1) * (1 - own)),
    }
    loss = NOISE_ADAPTIVE["softmax"][form](statistics, weight)
    np.testing.assert_allclose(loss, expected[form], rtol=1e-6)
