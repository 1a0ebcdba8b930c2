import jax
import jax.numpy as jnp
import numpy as np
import pytest
import reference

from nlip_jax.losses.contrastive import softmax_contrastive
from nlip_jax.losses.similarity import dot_similarity, token_max_similarity
from nlip_jax.losses.targets import identity


def unit(rng, *shape):
    x = rng.normal(size=shape)
    return (x / np.linalg.norm(x, axis=-1, keepdims=True)).astype(np.float32)


def test_dot_similarity_is_float32_from_either_side():
    rng = np.random.default_rng(0)
    image, text = (jnp.asarray(unit(rng, 4, 8), jnp.bfloat16) for _ in range(2))
    logits = dot_similarity(image, text, jnp.float32(10))
    expected = 10 * np.asarray(image, np.float64) @ np.asarray(text, np.float64).T
    assert logits.per_image.dtype == jnp.float32
    np.testing.assert_allclose(logits.per_image, expected, rtol=1e-5, atol=1e-5)
    np.testing.assert_array_equal(logits.per_text, logits.per_image.T)


def test_info_nce_equals_the_golden_values(shared):
    golden = np.load(shared / "golden/infonce.npz")

    def loss(image, text, log_scale):
        logits = dot_similarity(image, text, jnp.exp(log_scale))
        return softmax_contrastive(logits, identity).loss, logits

    inputs = golden["image_features"], golden["text_features"], golden["log_logit_scale"]
    value_and_gradient = jax.jit(jax.value_and_grad(loss, argnums=(0, 1, 2), has_aux=True))
    (value, logits), gradients = value_and_gradient(*inputs)
    np.testing.assert_allclose(logits.per_image, golden["logits_per_image"], rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(value, golden["loss"], rtol=1e-5)
    names = "grad_image_features", "grad_text_features", "grad_log_logit_scale"
    for gradient, name in zip(gradients, names, strict=True):
        np.testing.assert_allclose(gradient, golden[name], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("variant", ["image_full", "image_partial"])
def test_token_max_equals_the_golden_values(shared, variant):
    golden = np.load(shared / "golden/filip.npz")
    text_mask = golden["text_mask"].astype(bool)
    image_mask = golden[f"{variant}/image_mask"].astype(bool)

    def loss(image, text, log_scale):
        mask = None if image_mask.all() else image_mask
        logits = token_max_similarity(image, text, text_mask, jnp.exp(log_scale), mask)
        return softmax_contrastive(logits, identity).loss, logits

    inputs = golden["image_tokens"], golden["text_tokens"], golden["log_logit_scale"]
    value_and_gradient = jax.jit(jax.value_and_grad(loss, argnums=(0, 1, 2), has_aux=True))
    (value, logits), gradients = value_and_gradient(*inputs)
    scale = np.exp(np.float64(golden["log_logit_scale"]))
    for mine, name in ((logits.per_image, "sim_i2t"), (logits.per_text.T, "sim_t2i")):
        np.testing.assert_allclose(mine / scale, golden[f"{variant}/{name}"], rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(value, golden[f"{variant}/loss"], rtol=2e-5)
    names = "grad_image_tokens", "grad_text_tokens", "grad_log_logit_scale"
    for gradient, name in zip(gradients, names, strict=True):
        np.testing.assert_allclose(gradient, golden[f"{variant}/{name}"], rtol=1e-4, atol=2e-6)


def test_token_max_equals_the_reference_with_rows_without_tokens():
    rng = np.random.default_rng(1)
    image, text = unit(rng, 4, 3, 5), unit(rng, 4, 6, 5)
    image_mask, text_mask = rng.random((4, 3)) < 0.7, rng.random((4, 6)) < 0.6
    image_mask[1], text_mask[2] = False, False

    def score(image, text):
        logits = token_max_similarity(image, text, text_mask, 1.0, image_mask)
        both = jnp.stack([logits.per_image, logits.per_text.T])
        return jnp.sum(both * weights), both

    def slow(image, text):
        return np.stack(reference.token_max_similarity(image, text, image_mask, text_mask))

    weights = rng.normal(size=(2, 4, 4))
    (_, both), gradients = jax.jit(jax.value_and_grad(score, argnums=(0, 1), has_aux=True))(
        image, text
    )
    np.testing.assert_allclose(both, slow(image, text), atol=1e-6)
    of_image = reference.gradient(lambda x: np.sum(slow(x, text) * weights), image)
    of_text = reference.gradient(lambda x: np.sum(slow(image, x) * weights), text)
    np.testing.assert_allclose(gradients[0], of_image, atol=1e-5)
    np.testing.assert_allclose(gradients[1], of_text, atol=1e-5)


def test_token_max_keeps_no_pair_of_tokens_for_the_backward_pass():
    image, text, mask = jnp.ones((4, 5, 2)), jnp.ones((4, 7, 2)), jnp.ones((4, 7), bool)

    def forward(image, text):
        logits = token_max_similarity(image, text, mask, 1.0)
        return jnp.sum(logits.per_image + logits.per_text)

    pullback = jax.eval_shape(lambda *tokens: jax.vjp(forward, *tokens)[1], image, text)
    assert max(leaf.size for leaf in jax.tree.leaves(pullback)) < 4 * 4 * 5 * 7
