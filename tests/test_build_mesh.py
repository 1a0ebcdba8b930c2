"""Mesh, parameter rules and models of a config."""

import jax
import numpy as np
import pytest
from tiny import mesh_of

from configs import base
from nlip_jax import build
from nlip_jax.errors import UsageError
from nlip_jax.sharding import KeepByRow


def config(**fields):
    made = base.get_config()
    made.update_from_flattened_dict(fields)
    return made


def test_the_mesh_of_a_config():
    mesh = build.make_mesh(config(**{"mesh.fsdp": 2, "mesh.tensor": 2}))
    assert dict(mesh.shape) == {"data": 2, "fsdp": 2, "tensor": 2}
    with pytest.raises(UsageError, match=r"config\.batch_size=20 .*multiple of 8"):
        build.make_mesh(config(batch_size=20))
    with pytest.raises(UsageError, match=r"config\.mesh\.slices=2"):
        build.make_mesh(config(**{"mesh.slices": 2}))


@pytest.mark.parametrize("axes", [{}, {"fsdp": 8}, {"tensor": 2}, {"fsdp": 2, "tensor": 2}])
@pytest.mark.parametrize("fields", [{}, {"model.scan": False, "model.image.pool": "map"}])
def test_the_default_rules_fit_the_default_model(axes, fields):
    """Next to nothing stays whole on every device, on any mesh."""
    mesh, made = mesh_of(8, **axes), config(**fields)
    model = build.make_model(made, vocab_size=8_000, mesh=mesh)
    shapes = abstract_parameters(model, made)
    placed = build.make_placement(made, mesh=mesh).place(shapes)
    assert {item.rule.text for item in placed} == set(made.mesh.rules)
    total = sum(item.nbytes for item in placed)
    parts = mesh.shape["fsdp"] * mesh.shape["tensor"]
    assert sum(item.device_bytes for item in placed) < 1.05 * total / parts


def abstract_parameters(model, made):
    image = jax.ShapeDtypeStruct((8, made.data.image_size, made.data.image_size, 3), np.float32)
    tokens = jax.ShapeDtypeStruct((8, made.tokenizer.context_length), np.int32)
    return jax.eval_shape(model.init, jax.random.key(0), image, tokens)["params"]


def test_models_that_are_built_alike_are_equal():
    made = config()
    models = [
        build.make_model(made, vocab_size=100, mesh=mesh_of(8, fsdp=2)) for _ in range(2)
    ]
    assert models[0] == models[1] and hash(models[0]) == hash(models[1])
    assert models[0].image.constrain == KeepByRow(mesh_of(8, fsdp=2))
    assert models[0] != build.make_model(made, vocab_size=100)
