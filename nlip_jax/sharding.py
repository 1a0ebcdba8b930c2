"""The mesh, where parameters live on it, and the border between hosts and devices.

Axes: `data` splits the batch; `fsdp` splits the batch and the parameters. The batch lies over
both, so "global batch" means the same on every mesh.
"""

import math
from collections.abc import Callable, Mapping

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from nlip_jax.errors import RunError, UsageError
from nlip_jax.types import Array, PyTree

BATCH_AXES = ("data", "fsdp")


def make_mesh(*, data: int = -1, fsdp: int = 1) -> Mesh:
    """The mesh of all devices of all processes.

    Args:
      data: devices along `data`; -1 takes all that `fsdp` leaves.
      fsdp: devices along `fsdp`.

    Raises:
      UsageError: the product is not the number of devices.
    """
    count = jax.device_count()
    if data == -1 and fsdp > 0 and count % fsdp == 0:
        data = count // fsdp
    if data < 1 or fsdp < 1 or data * fsdp != count:
        raise UsageError(
            f"config.mesh.data={data} x config.mesh.fsdp={fsdp} does not make the {count} devices "
            "of this run; set data=-1 and fsdp to a divisor"
        )
    # Auto axes: XLA propagates shardings; jax.make_mesh's default asks for explicit ones.
    return jax.make_mesh((data, fsdp), BATCH_AXES, axis_types=(AxisType.Auto,) * 2)


def replicated(mesh: Mesh) -> NamedSharding:
    """The same value on every device."""
    return NamedSharding(mesh, PartitionSpec())


def by_row(mesh: Mesh) -> NamedSharding:
    """The first dimension split over all devices."""
    return NamedSharding(mesh, PartitionSpec(BATCH_AXES))


def check_batch(batch_size: int, mesh: Mesh, *, field: str) -> None:
    """Refuses a batch that the devices cannot share equally.

    Raises:
      UsageError: naming the field, the value and the rule.
    """
    if batch_size < 1 or batch_size % mesh.size:
        raise UsageError(
            f"config.{field}={batch_size} is not divisible by the {mesh.size} devices of the mesh "
            f"{dict(mesh.shape)}; choose a multiple of {mesh.size}"
        )


def shard_state(abstract: PyTree, mesh: Mesh, *, fsdp_min_bytes: int) -> PyTree:
    """Where every array of a state lives: large ones split over `fsdp`, the rest everywhere.

    The longest dimension that the axis divides is split; moments of an optimizer have the shape of
    their parameter, so they land beside it.

    Args:
      abstract: pytree of ShapeDtypeStructs.
      mesh: as of `make_mesh`.
      fsdp_min_bytes: arrays below stay replicated.

    Returns:
      Pytree of NamedShardings of the same structure.
    """
    parts = mesh.shape["fsdp"]

    def place(leaf: jax.ShapeDtypeStruct) -> NamedSharding:
        large = math.prod(leaf.shape) * leaf.dtype.itemsize >= fsdp_min_bytes
        divisible = [i for i, size in enumerate(leaf.shape) if size % parts == 0]
        if parts == 1 or not large or not divisible:
            return replicated(mesh)
        axis = max(divisible, key=lambda i: leaf.shape[i])
        return NamedSharding(mesh, PartitionSpec(*[None] * axis, "fsdp"))

    return jax.tree.map(place, abstract)


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
