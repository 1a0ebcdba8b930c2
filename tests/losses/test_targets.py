from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import reference

from nlip_jax.losses.contrastive import RowStatistics, row_statistics
from nlip_jax.losses.targets import NOISE_ADAPTIVE, identity, mixture_likelihood, smoothed

ROWS = {
    "smoothed_targets": reference.smoothed_row,
    "mixture_likelihood": reference.mixture_likelihood_row,
}
FORMS = pytest.mark.parametrize("form", NOISE_ADAPTIVE)


def logits_and_weight(b=6, seed=0):
    rng = np.random.default_rng(seed)
    logits = (3 * rng.normal(size=(b, b))).astype(np.float32)
    return logits, rng.random(b).astype(np.float32) * 0.7


@FORMS
def test_value_and_gradient_equal_the_reference(form):
    logits, weight = logits_and_weight()

    def loss(logits):
        return jnp.sum(NOISE_ADAPTIVE[form](row_statistics(logits), weight))

    def slow_loss(logits):
        return sum(ROWS[form](row, i, weight[i]) for i, row in enumerate(logits))

    value, gradient = jax.jit(jax.value_and_grad(loss))(logits)
    np.testing.assert_allclose(value, slow_loss(logits), rtol=1e-6)
    np.testing.assert_allclose(gradient, reference.gradient(slow_loss, logits), atol=2e-6)


@FORMS
def test_no_weight_is_info_nce_bit_for_bit(form):
    logits, _ = logits_and_weight(b=8)
    logits *= 20  # also where exp(-loss) underflows

    @partial(jax.jit, static_argnums=0)
    def loss_and_gradient(targets, logits):
        loss, pullback = jax.vjp(lambda x: targets(row_statistics(x)), logits)
        return loss, pullback(jnp.ones_like(loss))

    loss, gradient = loss_and_gradient(partial(NOISE_ADAPTIVE[form], weight=0.0), logits)
    plain, plain_gradient = loss_and_gradient(identity, logits)
    np.testing.assert_array_equal(loss, plain)
    np.testing.assert_allclose(gradient, plain_gradient, atol=1e-6)


@FORMS
def test_uniform_logits_cost_log_b(form):
    weight = jnp.array([0.0, 0.3, 0.5, 0.7, 1.0])
    loss = NOISE_ADAPTIVE[form](row_statistics(jnp.full((5, 5), 2.5)), weight)
    np.testing.assert_allclose(loss, np.log(5), rtol=1e-6)


def test_gradient_of_smoothed_is_probability_minus_target():
    logits, weight = logits_and_weight()
    gradient = jax.jit(jax.grad(lambda x: smoothed(row_statistics(x), weight).sum()))(logits)
    probability = np.exp([reference.log_softmax(row) for row in logits])
    np.testing.assert_allclose(np.diag(gradient), np.diag(probability) - (1 - weight), atol=1e-6)


@FORMS
def test_sure_rows_have_finite_values_and_gradients(form):
    def loss(logits, weight):
        return NOISE_ADAPTIVE[form](row_statistics(logits), weight)[0]

    gap, weight = np.meshgrid([-1e4, -90, 0, 1e-4, 90, 1e4], [0, 1e-6, 0.5, 0.99, 1])
    logits = gap.reshape(-1, 1, 1) * np.eye(3)
    value_and_gradient = jax.jit(jax.vmap(jax.value_and_grad(loss)))
    value, gradient = value_and_gradient(logits, weight.reshape(-1))
    assert value.shape == (30,)
    assert np.isfinite(value).all() and np.isfinite(gradient).all()


def test_mixture_likelihood_of_impossible_pairs_is_bounded():
    statistics = row_statistics(jnp.zeros((4, 4)) - 200 * jnp.eye(4))
    np.testing.assert_allclose(mixture_likelihood(statistics, 0.3), np.log(3 / 0.3), rtol=1e-5)


@FORMS
def test_no_gradient_flows_into_the_weight(form):
    logits, weight = logits_and_weight()
    statistics = row_statistics(logits)
    gradient = jax.grad(lambda w: NOISE_ADAPTIVE[form](statistics, w).sum())(jnp.asarray(weight))
    np.testing.assert_array_equal(gradient, 0.0)


@FORMS
def test_one_pair_costs_nothing(form):
    value, gradient = jax.value_and_grad(
        lambda x: NOISE_ADAPTIVE[form](row_statistics(x), jnp.array([0.5])).sum()
    )(jnp.array([[3.0]]))
    assert value == 0.0
    np.testing.assert_array_equal(gradient, 0.0)


@FORMS
def test_statistics_of_any_engine_will_do(form):
    """A million columns whose logits nobody holds, all 0 but the positive."""
    columns, positive, weight = 1e6, 5.0, 0.25
    statistics = RowStatistics(
        log_normaliser=jnp.log(jnp.array([columns - 1 + np.exp(positive)])),
        positive=jnp.array([positive]),
        total=jnp.array([positive]),
        columns=jnp.float32(columns),
    )
    log_normaliser = np.log(columns - 1 + np.exp(positive))
    own = np.exp(positive - log_normaliser)
    expected = {
        "smoothed_targets": log_normaliser - (1 - weight) * positive,
        "mixture_likelihood": -np.log((1 - weight) * own + weight / (columns - 1) * (1 - own)),
    }
    loss = NOISE_ADAPTIVE[form](statistics, weight)
    np.testing.assert_allclose(loss, expected[form], rtol=1e-6)
