"""The analytic count against the matmuls that are really in the traced forward pass."""

import math

import flax.linen as nn
import jax
import jax.numpy as jnp
import pytest
from four_parts import CONCEPTS, IMAGE, LENGTH, four_part
from jax.extend.core import jaxprs_in_params

from nlip_jax.models.dropout import example_keys
from nlip_jax.models.dual_encoder import DualEncoder
from nlip_jax.models.flops import dual_encoder_flops, forward_flops, image_tower_flops
from nlip_jax.models.sizes import variant
from nlip_jax.models.text_transformer import TextTransformer
from nlip_jax.models.vit import VisionTransformer


def traced_flops(jaxpr) -> int:
    """Multiply-adds, twice, of every dot_general in a jaxpr and what it calls."""
    total = 0
    for equation in jaxpr.eqns:
        if equation.primitive.name == "dot_general":
            (contracted, _), _ = equation.params["dimension_numbers"]
            shape = equation.invars[0].aval.shape
            inner = math.prod(shape[i] for i in contracted)
            total += 2 * math.prod(equation.outvars[0].aval.shape) * inner
        total += sum(traced_flops(sub) for sub in jaxprs_in_params(equation.params))
    return total


@pytest.mark.parametrize("pool", ["cls", "mean", "map"])
@pytest.mark.parametrize("token_features", [False, True])
def test_analytic_count_is_the_traced_count(pool, token_features):
    image_tower = VisionTransformer(4, 12, width=8, depth=2, heads=2, mlp_dim=20, pool=pool)
    text_tower = TextTransformer(20, context_length=7, width=12, depth=3, heads=3)
    model = DualEncoder(image_tower, text_tower, embed_dim=6, token_features=token_features)
    batch = 2
    image, tokens = jnp.zeros((batch, 12, 12, 3)), jnp.ones((batch, 7), jnp.int32)
    params = jax.eval_shape(model.init, jax.random.key(0), image, tokens)
    count = dual_encoder_flops(model)
    for side, data in (("image", image), ("text", tokens)):
        traced = jax.make_jaxpr(lambda p, x, s=side: model.apply(p, x, method=f"encode_{s}"))
        assert batch * count[side] == traced_flops(traced(params, data).jaxpr)


@pytest.mark.parametrize("in_itc", [False, True])
def test_analytic_count_of_four_parts_is_the_traced_count(in_itc):
    model = four_part(concepts_in_itc=in_itc)
    tokens, hints = jnp.ones((3, LENGTH), jnp.int32), jnp.ones((3, CONCEPTS), jnp.int32)
    keys = example_keys(jax.random.key(0), jnp.arange(3))
    params = jax.eval_shape(model.init, jax.random.key(0), IMAGE, tokens)

    def captions(params, memory):
        hidden = model.apply(params, memory, tokens, hints, tokens, method="caption_hidden")
        return hidden @ model.apply(params, method="output_table").T

    memory, visible = jnp.zeros((3, 5, 8)), jnp.zeros((3, 4), jnp.int32)
    calls = {
        "image": lambda p: model.apply(p, IMAGE, keys, method="encode_masked_image"),
        "text": lambda p: model.apply(p, tokens, None, hints, method="encode_text"),
        "captions": lambda p: captions(p, memory),
        "reconstruction": lambda p: model.apply(p, memory, visible, method="reconstruct"),
    }
    count = forward_flops(model)
    assert count.keys() == calls.keys()
    for part, call in calls.items():
        assert len(IMAGE) * count[part] == traced_flops(jax.make_jaxpr(call)(params).jaxpr), part


def test_parts_that_are_off_and_patches_that_are_hidden_cost_nothing():
    plain = four_part(captions=False, image_decoder=False, mask_ratio=0.0)
    assert forward_flops(plain).keys() == {"image", "text"}
    masked = four_part(captions=False, image_decoder=False)
    assert forward_flops(masked)["image"] < forward_flops(plain)["image"]
    assert forward_flops(masked)["text"] == forward_flops(plain)["text"]


def test_vit_b16_has_the_number_everyone_knows():
    tower = VisionTransformer(**variant("B/16"), image_size=224)
    assert round(image_tower_flops(tower) / 1e9, 1) == 35.1  # 17.6 billion multiply-adds


class OtherTower(nn.Module):
    """Of somebody's own: nothing is known of its work."""

    width: int = 8


def test_nothing_is_known_of_other_towers():
    text = TextTransformer(20, context_length=7, width=12, depth=3, heads=3)
    for count in (dual_encoder_flops, forward_flops):
        assert count(DualEncoder(OtherTower(), text, embed_dim=6)) is None
        assert count(None) is None
