import functools
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import reference
from jax.sharding import AxisType, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from nlip_jax.losses.contrastive import row_statistics, softmax_contrastive
from nlip_jax.losses.similarity import Logits, dot_similarity, token_max_similarity
from nlip_jax.losses.targets import identity, mixture_likelihood, smoothed


def two_sided(b=6, seed=0):
    """Different matrices for the two directions, as token-wise similarity gives."""
    rng = np.random.default_rng(seed)
    per_image, per_text = (3 * rng.normal(size=(2, b, b))).astype(np.float32)
    return Logits(per_image, per_text), rng.random(b).astype(np.float32) * 0.6


def test_row_statistics_are_sums_over_valid_columns():
    logits, _ = two_sided()
    matrix = logits.per_image
    valid = np.array([True, True, False, True, False, True])
    statistics = jax.jit(row_statistics)(matrix, valid)
    for i in np.flatnonzero(valid):
        row = matrix[i, valid].astype(np.float64)
        np.testing.assert_allclose(statistics.log_normaliser[i], np.log(np.exp(row).sum()), 1e-6)
        np.testing.assert_allclose(statistics.total[i], row.sum(), rtol=1e-5)
        assert statistics.positive[i] == matrix[i, i]
    assert statistics.columns == 4.0


@pytest.mark.parametrize(
    ("targets", "row_loss"),
    [(smoothed, reference.smoothed_row), (mixture_likelihood, reference.mixture_likelihood_row)],
)
def test_noise_adaptive_loss_equals_the_reference(targets, row_loss):
    logits, weight = two_sided()
    result = softmax_contrastive(logits, partial(targets, weight=weight))
    expected = reference.pair_losses(logits.per_image, logits.per_text, row_loss, weight)
    np.testing.assert_allclose(result.pair_loss, expected, rtol=1e-6)
    np.testing.assert_allclose(result.loss, expected.mean(), rtol=1e-6)


@pytest.mark.parametrize("filler", [1e4, np.nan, np.inf])
@pytest.mark.parametrize("targets", [smoothed, mixture_likelihood])
def test_invalid_pairs_change_nothing(targets, filler):
    logits, weight = two_sided()
    padding = ((0, 3), (0, 3))
    padded = jax.tree.map(lambda x: np.pad(x, padding, constant_values=filler), logits)
    padded_weight = np.pad(weight, (0, 3), constant_values=0.5)
    valid = np.arange(9) < 6

    def loss(logits, weight, valid):
        result = softmax_contrastive(logits, partial(targets, weight=weight), valid)
        return result.loss, result.pair_loss

    value_and_gradient = jax.jit(jax.value_and_grad(loss, has_aux=True))
    (value, pairs), gradient = value_and_gradient(padded, padded_weight, valid)
    (plain, plain_pairs), plain_gradient = value_and_gradient(logits, weight, None)
    np.testing.assert_allclose(value, plain, rtol=1e-6)
    np.testing.assert_allclose(pairs, np.pad(plain_pairs, (0, 3)), rtol=1e-6)
    expected = jax.tree.map(lambda x: np.pad(x, padding), plain_gradient)
    jax.tree.map(partial(np.testing.assert_allclose, atol=1e-6), gradient, expected)


def test_a_batch_without_valid_pairs_costs_nothing():
    logits, weight = two_sided()
    targets = partial(mixture_likelihood, weight=weight)
    value, gradient = jax.jit(
        jax.value_and_grad(lambda x: softmax_contrastive(x, targets, np.zeros(6, bool)).loss)
    )(logits)
    assert value == 0.0
    jax.tree.map(partial(np.testing.assert_array_equal, 0.0), gradient)


@jax.jit
def self_contrast(embed, scale):
    return softmax_contrastive(dot_similarity(embed, embed, scale), identity)


def test_duplicate_pairs_share_the_probability():
    embed = np.eye(4, dtype=np.float32)[[0, 0, 1, 2]]
    result = self_contrast(embed, 100.0)
    # Float32 resolves 8e-6 at logits of 100.
    np.testing.assert_allclose(result.pair_loss, [np.log(2), np.log(2), 0, 0], atol=8e-6)


def test_one_pair():
    assert self_contrast(np.ones((1, 1), np.float32), 10.0).loss == 0.0


def tokens_of(embed):
    return jnp.stack([embed, jnp.roll(embed, 1, axis=-1)], axis=1)


SIMILARITIES = {
    "dot": dot_similarity,
    "token_max": lambda image, text, scale: token_max_similarity(
        tokens_of(image), tokens_of(text), jnp.ones((len(text), 2), bool), scale
    ),
}


def global_batch():
    """24 rows divide by every mesh; the last five only fill up, so the remainder is uneven."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(2, 24, 8))
    image, text = (x / np.linalg.norm(x, axis=-1, keepdims=True)).astype(np.float32)
    return image, text, rng.random(24).astype(np.float32) * 0.5, np.arange(24) < 19


def value_and_gradient(similarity):
    def loss(image, text, scale, weight, valid):
        logits = SIMILARITIES[similarity](image, text, scale)
        result = softmax_contrastive(logits, partial(smoothed, weight=weight), valid)
        return result.loss, result.pair_loss

    return jax.jit(jax.value_and_grad(loss, argnums=(0, 1, 2), has_aux=True))


@functools.cache
def unpadded(similarity):
    """The loss of the 19 valid pairs on one device."""
    image, text, weight, valid = global_batch()
    run = value_and_gradient(similarity)
    return run(image[valid], text[valid], jnp.float32(20), weight[valid], None)


@pytest.mark.parametrize("devices", [1, 2, 3, 8])
@pytest.mark.parametrize("similarity", SIMILARITIES)
def test_every_mesh_sees_the_global_batch(similarity, devices):
    (plain, plain_pairs), plain_gradients = unpadded(similarity)
    mesh = Mesh(np.array(jax.devices()[:devices]), ("data",), axis_types=(AxisType.Auto,))
    image, text, weight, valid = jax.device_put(global_batch(), NamedSharding(mesh, P("data")))
    scale = jax.device_put(jnp.float32(20), NamedSharding(mesh, P()))
    run = value_and_gradient(similarity)
    (value, pairs), gradients = run(image, text, scale, weight, valid)

    np.testing.assert_allclose(value, plain, rtol=2e-6)
    np.testing.assert_allclose(pairs[:19], plain_pairs, rtol=1e-5)
    np.testing.assert_array_equal(pairs[19:], 0.0)
    for gradient, correct in zip(gradients[:2], plain_gradients[:2], strict=True):
        np.testing.assert_allclose(gradient[:19], correct, atol=2e-6)
        np.testing.assert_array_equal(gradient[19:], 0.0)
    np.testing.assert_allclose(gradients[2], plain_gradients[2], rtol=1e-5)
