import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nlip_jax.errors import UsageError
from nlip_jax.models.dual_encoder import DualEncoder, bounded_exp, normalize
from nlip_jax.models.text_transformer import TextTransformer
from nlip_jax.models.vit import VisionTransformer

IMAGE = jnp.asarray(np.random.default_rng(1).uniform(-1, 1, (3, 8, 8, 3)), jnp.float32)
TOKENS = jnp.array([[2, 5, 3, 0], [2, 5, 6, 3], [2, 3, 0, 0]], jnp.int32)


def build(**fields):
    return DualEncoder(
        image=VisionTransformer(patch_size=4, image_size=8, width=8, depth=1, heads=2),
        text=TextTransformer(vocab_size=20, context_length=4, width=12, depth=1, heads=2),
        embed_dim=6,
        **fields,
    )


@pytest.fixture(scope="module")
def outputs(random_params):
    """Of the whole model, and of its parts put together."""
    model = build(token_features=True, logit_bias_init=-10.0)

    @jax.jit
    def both(params):
        parts = {
            **model.apply(params, IMAGE, method="encode_image"),
            **model.apply(params, TOKENS, method="encode_text"),
        }
        return model.apply(params, IMAGE, TOKENS), parts

    return both(random_params(model, IMAGE, TOKENS))


def test_outputs(outputs):
    whole, _ = outputs
    assert {name: value.shape for name, value in whole.items()} == {
        "image_embed": (3, 6),
        "text_embed": (3, 6),
        "image_tokens": (3, 5, 6),
        "text_tokens": (3, 4, 6),
        "text_mask": (3, 4),
    }
    for name in ("image_embed", "text_embed", "image_tokens", "text_tokens"):
        np.testing.assert_allclose(jnp.linalg.norm(whole[name], axis=-1), 1, rtol=1e-5)
    np.testing.assert_array_equal(whole["text_mask"], TOKENS != 0)
    # What is pooled is one of the tokens here: the first of an image, the last of a text.
    np.testing.assert_allclose(whole["image_tokens"][:, 0], whole["image_embed"], atol=1e-6)
    last = whole["text_tokens"][np.arange(3), [2, 3, 1]]
    np.testing.assert_allclose(last, whole["text_embed"], atol=1e-6)


def test_parts_are_the_whole(outputs):
    whole, parts = outputs
    assert parts.keys() == whole.keys()
    for name, value in parts.items():
        np.testing.assert_allclose(value, whole[name], atol=1e-6)


def test_temperature_and_bias_start_where_they_should():
    model = build(init_temperature=0.1, logit_bias_init=-10.0)

    @jax.jit
    def start():
        params = model.init(jax.random.key(0), IMAGE, TOKENS)
        return [model.apply(params, method=name) for name in ("logit_scale", "logit_bias")]

    np.testing.assert_allclose(start(), [10, -10], rtol=1e-6)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_parameters_and_outputs_are_float32_with_strong_types(dtype):
    model = build(token_features=True, logit_bias_init=-10.0)
    model = model.clone(image=model.image.clone(dtype=dtype), text=model.text.clone(dtype=dtype))
    shapes = jax.eval_shape(lambda: model.init_with_output(jax.random.key(0), IMAGE, TOKENS))
    assert shapes[0].pop("text_mask").dtype == bool
    for leaf in jax.tree.leaves(shapes):
        assert leaf.dtype == jnp.float32
        assert not leaf.weak_type


def test_plain_model_has_no_token_features_and_no_bias():
    model = build()
    shapes = jax.eval_shape(lambda: model.init_with_output(jax.random.key(0), IMAGE, TOKENS))
    assert shapes[0].keys() == {"image_embed", "text_embed"}
    assert "logit_bias" not in shapes[1]["params"]
    assert shapes[1]["params"]["text_projection"]["kernel"].shape == (12, 6)
    assert model.apply({"params": {"log_scale": jnp.float32(0)}}, method="logit_bias") is None


def test_normalize_is_safe_at_zero_and_exact_for_large_and_small_rows():
    x = jnp.array([[0.0, 0.0], [3e-4, 4e-4], [3e8, 4e8]])
    first = jax.jit(jax.value_and_grad(lambda x: normalize(x)[:, 0].sum()))
    np.testing.assert_allclose(first(x)[0], 1.2, rtol=1e-6)
    np.testing.assert_array_equal(first(x)[1][0], [0, 0])
    np.testing.assert_allclose(first(x)[1][1], [0.64 / 5e-4, -0.48 / 5e-4], rtol=1e-5)
    assert jax.eval_shape(normalize, x.astype(jnp.bfloat16)).dtype == jnp.float32


def test_logit_scale_is_bounded_and_comes_back():
    bound = math.log(100)
    assert bounded_exp(jnp.float32(bound + 1), 100.0) == 100
    up, down = (jax.grad(lambda x, s=s: s * bounded_exp(x, 100.0)) for s in (-1.0, 1.0))
    np.testing.assert_allclose(up(2.0), -np.exp(2.0), rtol=1e-6)  # below: exp's own gradient
    np.testing.assert_allclose(down(2.0), np.exp(2.0), rtol=1e-6)
    assert up(bound + 0.1) == 0  # above: never further up,
    np.testing.assert_allclose(down(bound + 0.1), 100, rtol=1e-6)  # but back down

    x = jnp.float32(bound - 0.1)
    for _ in range(50):
        x = x - 1e-3 * up(x)
    assert bound <= x < bound + 0.11
    for _ in range(5):
        x = x - 1e-3 * down(x)
    assert x < bound - 0.1


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"init_temperature": 0.001}, "init_temperature=0.001"),
        ({"init_temperature": -1.0}, "init_temperature=-1.0"),
        ({"max_logit_scale": 0.0}, "max_logit_scale=0.0"),
    ],
)
def test_wrong_fields_are_named_on_construction(fields, message):
    with pytest.raises(UsageError, match=message):
        build(**fields)
