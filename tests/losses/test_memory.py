"""What compiled losses hold and send, read from XLA's own accounts; nothing runs."""

import functools
import re

import jax
import jax.numpy as jnp
import pytest
import tiny
from cases import Case
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from nlip_jax.losses import targets
from nlip_jax.losses.contrastive import contrast
from nlip_jax.losses.engine import Engine
from nlip_jax.losses.sides import Side

OWN, DIM, TILE = 80, 24, 16  # pairs of a device


@functools.cache
def compiled(impl, devices, normaliser="softmax", similarity="dot"):
    """Loss and gradients of rows that are split over the devices."""
    mesh = tiny.mesh_of(devices)
    rows = NamedSharding(mesh, P(mesh.axis_names))
    batch, tokens = OWN * devices, (5,) if similarity == "token_max" else ()
    features = jax.ShapeDtypeStruct((batch, *tokens, DIM), jnp.float32, sharding=rows)
    key = jax.ShapeDtypeStruct((batch, 1), jnp.int32, sharding=rows)
    problem = Case(similarity=similarity, normaliser=normaliser).problem
    engine = Engine(impl=impl, mesh=mesh, tile=TILE, duplicates="ignored")

    def loss(image, text, scale, bias, key):
        images, texts = Side(image, keys=(key,)), Side(text, keys=(key,))
        return contrast(
            engine, problem, images, texts, targets=targets.identity, scale=scale, bias=bias
        ).loss

    run = jax.jit(jax.value_and_grad(loss, argnums=(0, 1, 2, 3)))
    return run.lower(features, features, jnp.float32(10.0), jnp.float32(0.0), key).compile()


def largest_shapes(executable) -> set[tuple[int, ...]]:
    """Shapes of all values of at least a device's rows by as many columns."""
    shapes = re.findall(r"\w+\[([\d,]+)\]", executable.as_text())
    found = {tuple(map(int, shape.split(","))) for shape in shapes}
    return {shape for shape in found if sum(size >= OWN for size in shape) > 1}


@pytest.mark.parametrize("similarity", ["dot", "token_max"])
def test_a_ring_gathers_nothing(similarity):
    text = compiled("ring", 8, similarity=similarity).as_text()
    assert "collective-permute" in text
    assert "all-gather" not in text and "all-to-all" not in text
    assert "all-gather" in compiled("tiled", 8).as_text()  # the name is the right one


@pytest.mark.parametrize("normaliser", ["softmax", "sigmoid"])
def test_what_a_ring_takes_does_not_grow_with_the_devices(normaliser):
    temp = {
        devices: compiled("ring", devices, normaliser).memory_analysis().temp_size_in_bytes
        for devices in (1, 2, 4, 8)
    }
    # One device alone has nobody to send to, and several send two halves.
    assert temp[4] <= 1.02 * temp[2] and temp[8] <= 1.02 * temp[2], temp
    assert temp[8] <= 4 * temp[1], temp


@pytest.mark.parametrize(("impl", "devices"), [("tiled", 1), ("tiled", 8), ("ring", 8)])
def test_no_more_than_a_tile_of_logits_is_ever_there(impl, devices):
    assert not largest_shapes(compiled(impl, devices))


def test_the_plain_one_holds_all_logits():
    assert (OWN, OWN) in largest_shapes(compiled("dense", 1))
    assert (OWN, 8 * OWN) in largest_shapes(compiled("rows", 8))
