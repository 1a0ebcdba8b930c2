"""The mesh and the border between hosts and devices.

Axes: `data` splits the batch; `fsdp` splits the batch and the parameters; `tensor` splits the heads
and MLPs of every layer. The batch lies over the first two, so "global batch" means the same on
every mesh. Which parameter is split how: `placement`.
"""

import collections
import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence

import jax
import numpy as np
from jax.experimental import mesh_utils, multihost_utils
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from nlip_jax.errors import RunError, UsageError
from nlip_jax.types import Array

BATCH_AXES = ("data", "fsdp")
AXES = (*BATCH_AXES, "tensor")


def make_mesh(*, data: int = -1, fsdp: int = 1, tensor: int = 1, slices: int = 1) -> Mesh:
    """The mesh of all devices of all processes.

    Args:
      data: devices along `data`; -1 takes all that the others leave.
      fsdp: devices along `fsdp`.
      tensor: devices along `tensor`.
      slices: parts of the machine with a slow network between them; only `data` spans them.

    Raises:
      UsageError: the product is not the number of devices, or the devices do not lie in so many
        slices.
    """
    devices = jax.devices()
    shape = mesh_shape(len(devices), data=data, fsdp=fsdp, tensor=tensor)
    # Auto axes: XLA propagates shardings; jax's default asks for explicit ones.
    types = (AxisType.Auto,) * len(AXES)
    return Mesh(arrange(devices, shape, slices=slices), AXES, axis_types=types)


def mesh_shape(count: int, *, data: int, fsdp: int, tensor: int) -> tuple[int, int, int]:
    """Devices along each axis, with data=-1 worked out; see `make_mesh`."""
    rest = fsdp * tensor
    if data == -1 and min(fsdp, tensor) > 0 and count % rest == 0:
        data = count // rest
    if min(data, fsdp, tensor) < 1 or data * rest != count:
        raise UsageError(
            f"config.mesh.data={data} x config.mesh.fsdp={fsdp} x config.mesh.tensor={tensor} does "
            f"not make the {count} devices of this run; set data=-1 and the others so that their "
            "product divides it"
        )
    return data, fsdp, tensor


def arrange(devices: Sequence[jax.Device], shape: Sequence[int], *, slices: int) -> np.ndarray:
    """The devices in the shape of the mesh: neighbours in a slice, slices one after the other.

    Args:
      devices: all of them.
      shape: along `data`, `fsdp` and `tensor`.
      slices: how many the devices are expected to lie in.

    Returns:
      Array of devices; its first axis spans the slices, the others stay inside of one.

    Raises:
      UsageError: there are not so many slices, they differ in size, or `data` does not divide.
    """
    data, *inner = shape
    groups = group_by_slice(devices, slices=slices)
    sizes = [len(group) for group in groups]
    if len(groups) != slices or len(set(sizes)) != 1:
        raise UsageError(
            f"config.mesh.slices={slices}: the devices of this run lie in slices of "
            f"{', '.join(map(str, sizes))} devices; it must be their number, all of one size"
        )
    if data % slices:
        raise UsageError(
            f"config.mesh.data={data} is not divisible by config.mesh.slices={slices}: only data "
            "spans the slices; choose fsdp x tensor so that it fits into one slice"
        )
    blocks = [
        mesh_utils.create_device_mesh(
            (data // slices, *inner), group, allow_split_physical_axes=True
        )
        for group in groups
    ]
    return np.concatenate(blocks)


def group_by_slice(devices: Sequence[jax.Device], *, slices: int) -> list[list[jax.Device]]:
    """The devices of each slice: by `slice_index` where it differs, else, for slices, by process.

    Args:
      devices: all of them.
      slices: how many are asked for; 1 where processes need not be told apart.
    """

    def slice_index(device: jax.Device) -> int:
        return getattr(device, "slice_index", 0)

    told_apart = len(set(map(slice_index, devices))) > 1
    groups = collections.defaultdict(list)
    for device in devices:
        by_process = slices > 1 and not told_apart
        groups[device.process_index if by_process else slice_index(device)].append(device)
    return [groups[key] for key in sorted(groups)]


def replicated(mesh: Mesh) -> NamedSharding:
    """The same value on every device."""
    return NamedSharding(mesh, PartitionSpec())


def by_row(mesh: Mesh) -> NamedSharding:
    """The first dimension split over `data` and `fsdp`."""
    return NamedSharding(mesh, PartitionSpec(BATCH_AXES))


def num_row_shards(mesh: Mesh) -> int:
    """Parts that a batch is split into by row."""
    return math.prod(mesh.shape[axis] for axis in BATCH_AXES)


def check_batch(batch_size: int, mesh: Mesh, *, field: str) -> None:
    """Refuses a batch that the devices cannot share equally.

    All devices of the mesh: those along `tensor` share the rows of the loss.

    Raises:
      UsageError: naming the field, the value and the rule.
    """
    if batch_size < 1 or batch_size % mesh.size:
        raise UsageError(
            f"config.{field}={batch_size} is not divisible by the {mesh.size} devices of the mesh "
            f"{dict(mesh.shape)}; choose a multiple of {mesh.size}"
        )


@dataclasses.dataclass(frozen=True)
class KeepByRow:
    """Function that keeps activations split by row, as the batch is: `[b, ...]` to the same.

    With parameters split over `fsdp`, XLA may else split the activations to meet them: moving
    activations in every layer, where moving the layer's parameters costs less. A value with
    equality, so that modules that hold one can be compared.
    """

    mesh: Mesh

    def __call__(self, x: Array) -> Array:
        """The same array, laid out by row; b must divide over `data` x `fsdp`."""
        return jax.lax.with_sharding_constraint(x, by_row(self.mesh))


def local_rows(batch_size: int, mesh: Mesh) -> np.ndarray:
    """The rows of a global batch that the devices of this process hold, ascending."""
    places = by_row(mesh).addressable_devices_indices_map((batch_size,))
    starts = {index[0].indices(batch_size)[:2] for index in places.values()}
    return np.concatenate([np.arange(start, stop) for start, stop in sorted(starts)])


def to_devices(batch: Mapping[str, np.ndarray], mesh: Mesh) -> dict[str, Array]:
    """Global arrays, split by row, from the rows that each process holds."""
    sharding = by_row(mesh)
    return {
        name: jax.make_array_from_process_local_data(sharding, np.asarray(value))
        for name, value in batch.items()
    }


def from_all_hosts(values: np.ndarray, sharding: NamedSharding) -> Array:
    """A global array from a host array that all processes have."""
    values = np.asarray(values)
    return jax.make_array_from_callback(values.shape, sharding, lambda place: values[place])


def to_host(array: Array) -> np.ndarray:
    """The rows of an array split by row that this process holds, in the order of `local_rows`."""
    size = array.shape[0]
    shards = {shard.index[0].indices(size)[0]: shard for shard in array.addressable_shards}
    return np.concatenate([np.asarray(shards[start].data) for start in sorted(shards)])


def sum_over_processes(counts: np.ndarray) -> np.ndarray:
    """The sum of the counts of all processes, `[k]` int64 -> `[k]` int64; all of them call it."""
    if jax.process_count() == 1:
        return counts
    # As 32-bit halves: arrays of int64 lose their upper halves on the way through the devices.
    halves = multihost_utils.process_allgather(np.ascontiguousarray(counts).view(np.uint32))
    return np.ascontiguousarray(halves).view(np.int64).sum(axis=0)


def rows_of_all(own: np.ndarray, *, rows: np.ndarray, batch_size: int) -> np.ndarray:
    """A number of every row of the global batch, on every process; all of them call it.

    Args:
      own: `[k]` int64, of the rows that this process holds.
      rows: `[k]` which those are.
      batch_size: global, `b`.

    Returns:
      `[b]` int64.
    """
    placed = np.zeros(batch_size, np.int64)
    placed[rows] = own
    return sum_over_processes(placed)


def on_leader(work: Callable[[], None]) -> None:
    """Runs something that writes files on the first process; the others wait, and fail with it."""
    problem = None
    if jax.process_index() == 0:
        try:
            work()
        except (UsageError, RunError) as error:
            problem = error
    if jax.process_count() > 1:
        failed = multihost_utils.broadcast_one_to_all(np.int32(problem is not None))
        if failed and problem is None:
            raise RunError("the first process stopped; its message says why")
    if problem is not None:
        raise problem
