"""The mesh, what lives where, and the way to the devices and back."""

import dataclasses

import jax
import numpy as np
import pytest
from tiny import mesh_of

from nlip_jax import sharding
from nlip_jax.errors import UsageError


@pytest.mark.parametrize(
    ("asked", "shape"),
    [
        ({}, (8, 1, 1)),
        ({"fsdp": 4}, (2, 4, 1)),
        ({"data": 2, "fsdp": 4}, (2, 4, 1)),
        ({"data": 8}, (8, 1, 1)),
        ({"data": -1, "fsdp": 8}, (1, 8, 1)),
        ({"tensor": 2}, (4, 1, 2)),
        ({"data": 2, "fsdp": 2, "tensor": 2}, (2, 2, 2)),
    ],
)
def test_meshes(asked, shape):
    mesh = sharding.make_mesh(**asked)
    assert mesh.axis_names == ("data", "fsdp", "tensor") == sharding.AXES
    assert mesh.devices.shape == shape
    assert set(mesh.devices.flat) == set(jax.devices())


@pytest.mark.parametrize(
    "asked",
    [
        {"fsdp": 3},
        {"data": 4},
        {"data": 3, "fsdp": 3},
        {"data": 0},
        {"fsdp": 0},
        {"tensor": 3},
        {"tensor": 0},
        {"tensor": -2},
        {"data": 4, "fsdp": 2, "tensor": 2},
        {"data": -8, "fsdp": -1},
    ],
)
def test_meshes_that_are_refused(asked):
    words = r"mesh\.data=.*mesh\.fsdp=.*mesh\.tensor=.*8 devices.*data=-1"
    with pytest.raises(UsageError, match=words):
        sharding.make_mesh(**asked)


# --- slices ---------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Device:
    """What the mesh looks at in a device."""

    id: int
    slice_index: int
    process_index: int
    platform: str = "cpu"
    device_kind: str = "pretend"


def slices_of(count: int, *, size: int, processes: int = 1) -> list[Device]:
    """Slices of `size` devices, in the order of their ids, which is not that of the slices."""
    return [
        Device(id=i, slice_index=i % count, process_index=i % (count * processes))
        for i in range(count * size)
    ]


def test_only_data_spans_the_slices():
    devices = slices_of(2, size=8, processes=2)
    mesh = sharding.arrange(devices, (4, 2, 2), slices=2)
    assert mesh.shape == (4, 2, 2)
    assert sorted(device.id for device in mesh.flat) == list(range(16))
    found = [{device.slice_index for device in part.flat} for part in mesh]
    assert found == [{0}, {0}, {1}, {1}]


def test_processes_are_slices_where_nothing_else_tells_them_apart():
    devices = [Device(id=i, slice_index=0, process_index=i // 4) for i in range(8)]
    mesh = sharding.arrange(devices, (2, 2, 2), slices=2)
    assert [{device.process_index for device in part.flat} for part in mesh] == [{0}, {1}]
    assert sharding.arrange(devices, (8, 1, 1), slices=1).shape == (8, 1, 1)


def test_devices_need_no_slice_index():
    assert sharding.group_by_slice(jax.devices(), slices=1) == [jax.devices()]


@pytest.mark.parametrize(
    ("devices", "shape", "slices", "words"),
    [
        (slices_of(2, size=4), (8, 1, 1), 1, r"mesh\.slices=1: .* of 4, 4 devices"),
        (slices_of(2, size=4), (8, 1, 1), 4, r"mesh\.slices=4: .* of 4, 4 devices"),
        (slices_of(1, size=8), (8, 1, 1), 2, r"mesh\.slices=2: .* of 8 devices"),
        (slices_of(2, size=4)[:-2] + slices_of(1, size=2), (8, 1, 1), 2, "of 5, 3 devices"),
        (slices_of(2, size=4), (1, 8, 1), 2, r"mesh\.data=1 .*mesh\.slices=2: only"),
    ],
)
def test_slices_that_are_refused(devices, shape, slices, words):
    with pytest.raises(UsageError, match=words):
        sharding.arrange(devices, shape, slices=slices)


# --- batches --------------------------------------------------------------------------------------


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


@pytest.mark.parametrize("axes", [{}, {"fsdp": 4}, {"tensor": 2}, {"fsdp": 2, "tensor": 2}])
def test_rows_are_shared_by_data_and_fsdp(axes):
    """Devices along `tensor` hold the same rows, which come back once."""
    mesh = mesh_of(8, **axes)
    x = np.arange(16 * 3, dtype=np.float32).reshape(16, 3)
    array = sharding.to_devices({"x": x}, mesh)["x"]
    rows = 16 * mesh.shape["tensor"] // 8
    assert {shard.data.shape for shard in array.addressable_shards} == {(rows, 3)}
    np.testing.assert_array_equal(sharding.to_host(array), x)
    np.testing.assert_array_equal(sharding.local_rows(16, mesh), np.arange(16))


def test_activations_are_kept_by_row():
    mesh = mesh_of(8, fsdp=2, tensor=2)
    keep = sharding.KeepByRow(mesh)
    assert len({keep, sharding.KeepByRow(mesh_of(8, fsdp=2, tensor=2))}) == 1
    assert keep != sharding.KeepByRow(mesh_of(8))
    x = np.zeros((16, 4, 3), np.float32)
    kept = jax.jit(lambda x: keep(x + 1))(jax.device_put(x, sharding.replicated(mesh)))
    assert kept.sharding.is_equivalent_to(sharding.by_row(mesh), 3)
