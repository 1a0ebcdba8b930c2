"""The mesh, what lives where, and the way to the devices and back."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec as P
from tiny import mesh_of

from nlip_jax import sharding
from nlip_jax.errors import UsageError


@pytest.mark.parametrize(
    ("asked", "shape"),
    [
        ({}, (8, 1)),
        ({"fsdp": 4}, (2, 4)),
        ({"data": 2, "fsdp": 4}, (2, 4)),
        ({"data": 8}, (8, 1)),
        ({"data": -1, "fsdp": 8}, (1, 8)),
    ],
)
def test_meshes(asked, shape):
    mesh = sharding.make_mesh(**asked)
    assert (mesh.shape["data"], mesh.shape["fsdp"]) == shape


@pytest.mark.parametrize(
    "asked",
    [
        {"fsdp": 3},
        {"data": 4},
        {"data": 3, "fsdp": 3},
        {"data": 0},
        {"fsdp": 0},
        {"data": -8, "fsdp": -1},
    ],
)
def test_meshes_that_are_refused(asked):
    with pytest.raises(UsageError, match=r"mesh\.data=.*mesh\.fsdp=.*8 devices.*data=-1"):
        sharding.make_mesh(**asked)


@pytest.mark.parametrize("size", [0, -8, 4, 20])
def test_batches_that_are_refused(size):
    with pytest.raises(UsageError, match=rf"config\.batch_size={size} .*multiple of 8"):
        sharding.check_batch(size, sharding.make_mesh(fsdp=2), field="batch_size")
    sharding.check_batch(24, sharding.make_mesh(fsdp=2), field="batch_size")


def test_batches_travel_to_the_devices_and_back():
    mesh = sharding.make_mesh(fsdp=2)
    batch = {
        "image": np.arange(16 * 3, dtype=np.uint8).reshape(16, 3),
        "noise_prob": np.linspace(0, 1, 16, dtype=np.float32),
    }
    arrays = sharding.to_devices(batch, mesh)
    for name, value in batch.items():
        assert arrays[name].sharding == sharding.by_row(mesh)
        assert arrays[name].dtype == value.dtype
        assert {shard.data.shape[0] for shard in arrays[name].addressable_shards} == {2}
        np.testing.assert_array_equal(sharding.to_host(arrays[name]), value)
    np.testing.assert_array_equal(sharding.local_rows(16, mesh), np.arange(16))


def test_rows_of_one_process_among_several():
    """A process that holds half of the devices holds the rows of those devices."""

    class Half:
        def addressable_devices_indices_map(self, shape):
            return {"d3": (slice(6, 8),), "d1": (slice(2, 4),), "twin": (slice(2, 4),)}

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sharding, "by_row", lambda mesh: Half())
        np.testing.assert_array_equal(sharding.local_rows(8, None), [2, 3, 6, 7])


def test_large_arrays_are_split_over_fsdp_and_moments_beside_them():
    mesh = sharding.make_mesh(fsdp=4)

    def leaf(*shape):
        return jax.ShapeDtypeStruct(shape, np.float32)

    params = {
        "longest": leaf(8, 64),
        "first_of_equals": leaf(32, 32),
        "only_divisible": leaf(12, 63),
        "nothing_divisible": leaf(63, 31),
        "small": leaf(4, 4),
        "scalar": leaf(),
    }
    state = {"params": params, "mu": params}
    places = sharding.shard_state(state, mesh, fsdp_min_bytes=1024)
    assert {name: place.spec for name, place in places["params"].items()} == {
        "longest": P(None, "fsdp"),
        "first_of_equals": P("fsdp"),
        "only_divisible": P("fsdp"),
        "nothing_divisible": P(),
        "small": P(),
        "scalar": P(),
    }
    assert places["mu"] == places["params"]


def test_nothing_is_split_without_fsdp():
    places = sharding.shard_state(
        {"w": jax.ShapeDtypeStruct((64, 64), np.float32)}, mesh_of(8), fsdp_min_bytes=0
    )
    assert places["w"].is_fully_replicated


def test_results_of_any_mesh_are_those_of_one_device():
    """The mesh is a matter of speed: a product over split parameters is the same product."""
    x = np.random.default_rng(0).normal(size=(16, 32)).astype(np.float32)
    w = np.random.default_rng(1).normal(size=(32, 64)).astype(np.float32)
    for mesh in (mesh_of(1), mesh_of(8), mesh_of(8, fsdp=4), mesh_of(8, fsdp=8)):
        place = sharding.shard_state(jax.eval_shape(lambda: w), mesh, fsdp_min_bytes=0)
        product = jax.jit(jnp.matmul, out_shardings=sharding.by_row(mesh))
        result = product(sharding.to_devices({"x": x}, mesh)["x"], jax.device_put(w, place))
        np.testing.assert_allclose(sharding.to_host(result), x @ w, rtol=1e-5, atol=1e-5)
