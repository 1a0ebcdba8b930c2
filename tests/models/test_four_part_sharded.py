"""The four parts on a mesh of data x fsdp x tensor: the numbers of one device."""

import jax
import jax.numpy as jnp
import numpy as np
from four_parts import IMAGE, INPUTS, TOKENS, four_part, outputs_of
from tiny import mesh_of

from configs import base
from nlip_jax import sharding
from nlip_jax.models.dropout import example_keys
from nlip_jax.placement import Placement

RULES = tuple(base.get_config().mesh.rules)
ROWS = {name: jnp.concatenate([value] * 3)[:8] for name, value in INPUTS.items() if name != "keys"}


def both(model, params, inputs):
    """What training asks for, and the first step of a caption."""
    outputs = outputs_of(model, params, inputs)
    memory, hints, noised = outputs["image_memory"], inputs["hints"], inputs["noised"]
    cache = model.apply(params, memory, hints, noised, method="start_caption")
    words = inputs["tokens"][:, 0]
    logits, _ = model.apply(params, cache, words, jnp.int32(0), method="caption_step")
    table = model.apply(params, method="output_table")
    return outputs | {"logits": logits, "first": outputs["hidden"][:, 0] @ table.T}


def test_every_mesh_has_the_same_numbers(random_params):
    plain = four_part()
    params = random_params(plain, IMAGE, TOKENS)
    inputs = ROWS | {"keys": example_keys(jax.random.key(5), jnp.arange(8))}
    expected = jax.jit(lambda params, inputs: both(plain, params, inputs))(params, inputs)
    np.testing.assert_allclose(expected["logits"], expected["first"], atol=1e-5)

    mesh = mesh_of(8, fsdp=2, tensor=2)
    keep = sharding.KeepByRow(mesh)
    model = four_part(shared={"constrain": keep}, constrain=keep)
    placement = Placement(mesh=mesh, rules=RULES, fsdp_min_bytes=256)
    places = placement.shardings(params, params=params)
    placed = jax.device_put((params, inputs), (places, sharding.by_row(mesh)))
    found = jax.jit(lambda params, inputs: both(model, params, inputs))(*placed)
    for name, value in expected.items():
        np.testing.assert_allclose(found[name], value, atol=1e-5, err_msg=name)
    parts = placed[0]["params"]["decoder"]["decoder"]["block_0"]
    assert "tensor" in str(parts["cross_attention"]["query"]["kernel"].sharding.spec)
    assert "tensor" in str(parts["mlp"]["narrow"]["kernel"].sharding.spec)
