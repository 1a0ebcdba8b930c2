"""Similarities: their published values, and the slow loops."""

import functools

import cases
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import reference

from nlip_jax.losses import targets
from nlip_jax.losses.contrastive import contrast
from nlip_jax.losses.engine import Engine
from nlip_jax.losses.sides import Side
from nlip_jax.losses.similarity import aligned, dot, token_max


def test_dot_is_float32_from_bfloat16():
    rng = np.random.default_rng(0)
    image, text = (jnp.asarray(cases.unit(rng, 4, 8), jnp.bfloat16) for _ in range(2))
    found = dot(image, text)
    expected = np.asarray(image, np.float64) @ np.asarray(text, np.float64).T
    assert found.per_row.dtype == jnp.float32
    np.testing.assert_allclose(found.per_row, expected, atol=1e-6)
    np.testing.assert_array_equal(found.per_column, found.per_row)


@functools.partial(jax.jit, static_argnames="similarity")
def info_nce(image, text, image_mask, text_mask, log_scale, *, similarity):
    """Loss and gradients of features and log scale, as the golden files have them."""

    def loss(image, text, log_scale):
        images, texts = Side(image, mask=image_mask), Side(text, mask=text_mask)
        problem = cases.Case(similarity=similarity).problem
        scale = jnp.exp(log_scale)
        return contrast(
            Engine(), problem, images, texts, targets=targets.identity, scale=scale
        ).loss

    return jax.value_and_grad(loss, argnums=(0, 1, 2))(image, text, log_scale)


def test_info_nce_equals_the_golden_values(shared):
    golden = np.load(shared / "golden/infonce.npz")
    image, text, log_scale = (
        golden[name] for name in ("image_features", "text_features", "log_logit_scale")
    )
    alike = dot(image, text)
    np.testing.assert_allclose(
        np.exp(log_scale) * alike.per_row, golden["logits_per_image"], rtol=1e-5, atol=1e-5
    )
    value, gradients = info_nce(image, text, None, None, log_scale, similarity="dot")
    np.testing.assert_allclose(value, golden["loss"], rtol=1e-5)
    names = "grad_image_features", "grad_text_features", "grad_log_logit_scale"
    for gradient, name in zip(gradients, names, strict=True):
        np.testing.assert_allclose(gradient, golden[name], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("variant", ["image_full", "image_partial"])
def test_token_max_equals_the_golden_values(shared, variant):
    golden = np.load(shared / "golden/filip.npz")
    image_mask = golden[f"{variant}/image_mask"].astype(bool)
    masks = None if image_mask.all() else image_mask, golden["text_mask"].astype(bool)
    tokens = golden["image_tokens"], golden["text_tokens"]
    alike = token_max(*tokens, *masks)
    for found, name in ((alike.per_row, "sim_i2t"), (alike.per_column, "sim_t2i")):
        np.testing.assert_allclose(found, golden[f"{variant}/{name}"], rtol=1e-5, atol=1e-6)
    value, gradients = info_nce(
        *tokens, *masks, golden["log_logit_scale"], similarity="token_max"
    )
    np.testing.assert_allclose(value, golden[f"{variant}/loss"], rtol=2e-5)
    names = "grad_image_tokens", "grad_text_tokens", "grad_log_logit_scale"
    for gradient, name in zip(gradients, names, strict=True):
        np.testing.assert_allclose(gradient, golden[f"{variant}/{name}"], rtol=1e-4, atol=2e-6)


def test_token_max_equals_the_reference_with_rows_without_tokens():
    rng = np.random.default_rng(1)
    image, text = cases.unit(rng, 4, 3, 5), cases.unit(rng, 5, 6, 5)
    image_mask, text_mask = rng.random((4, 3)) < 0.7, rng.random((5, 6)) < 0.6
    image_mask[1], text_mask[2] = False, False
    weights = rng.normal(size=(2, 4, 5))

    def score(image, text):
        both = jnp.stack(jax.tree.leaves(token_max(image, text, image_mask, text_mask)))
        return jnp.sum(both * weights), both

    def slow(image, text):
        return np.stack(reference.token_max_similarity(image, text, image_mask, text_mask))

    with jax.enable_x64(True):
        run = jax.jit(jax.value_and_grad(score, argnums=(0, 1), has_aux=True))
        (_, both), gradients = run(image, text)
    np.testing.assert_allclose(both, slow(image, text), atol=1e-14)
    of_image = reference.gradient(lambda x: np.sum(slow(x, text) * weights), image)
    of_text = reference.gradient(lambda x: np.sum(slow(image, x) * weights), text)
    np.testing.assert_allclose(gradients[0], of_image, atol=1e-8)
    np.testing.assert_allclose(gradients[1], of_text, atol=1e-8)


def test_of_equal_matches_the_first_has_the_gradient():
    row, columns = jnp.ones((1, 1, 2)), jnp.ones((1, 3, 2))
    gradient = jax.grad(lambda x: token_max(row, x).per_row.sum())(columns)
    np.testing.assert_array_equal(gradient[0], [[1, 1], [0, 0], [0, 0]])


@pytest.mark.parametrize("similarity", cases.SIMILARITIES)
def test_aligned_is_the_diagonal(similarity):
    features, masks = cases.sides(similarity)
    compare = cases.SIMILARITIES[similarity]
    found = jax.jit(functools.partial(aligned, compare))(*features, *masks)
    for whole, own in zip(
        cases.REFERENCE[similarity](*features, *masks), jax.tree.leaves(found), strict=True
    ):
        np.testing.assert_allclose(own, np.diag(whole), atol=1e-6)


def test_token_max_keeps_no_pair_of_tokens_for_the_backward_pass():
    image, text, mask = jnp.ones((4, 5, 2)), jnp.ones((4, 7, 2)), jnp.ones((4, 7), bool)

    def forward(image, text):
        found = token_max(image, text, None, mask)
        return jnp.sum(found.per_row + found.per_column)

    pullback = jax.eval_shape(lambda *tokens: jax.vjp(forward, *tokens)[1], image, text)
    assert max(leaf.size for leaf in jax.tree.leaves(pullback)) < 4 * 4 * 5 * 7
