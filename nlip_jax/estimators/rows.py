"""Rows of numbers that lie on the devices in chunks, for what passes over them many times."""

import functools

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from nlip_jax.sharding import from_all_hosts


@flax.struct.dataclass
class Rows:
    """Rows split by device, each device's in chunks of one size.

    Attributes:
        x: [devices * chunks, c, d] float32; 0 on rows that only fill up.
        ids: [devices * chunks, c] int32: a row's class, or its number; -1 on rows that only fill
            up, which are the last.
    """

    x: Array
    ids: Array


def place(x: np.ndarray, ids: np.ndarray, *, most: int, mesh: Mesh) -> tuple[Rows, np.ndarray]:
    """Puts rows on the devices, with their mean taken off: float32 then resolves what differs.

    Args:
        x: [n, d] finite floats, the same on all processes.
        ids: [n] integers from 0, one of each row.
        most: rows of a chunk.
        mesh: whose devices share the rows.

    Returns:
        The rows less their mean, and the mean, [d] float32.
    """
    x = np.asarray(x, np.float32)
    mean = x.mean(0, dtype=np.float64).astype(np.float32)
    per_device = -(-len(x) // mesh.size)
    chunks = -(-per_device // most)
    chunk = -(-per_device // chunks)
    on_devices = Rows(
        x=_in_chunks(x, chunks=chunks, chunk=chunk, fill=0, mesh=mesh),
        ids=_in_chunks(
            np.asarray(ids, np.int32), chunks=chunks, chunk=chunk, fill=-1, mesh=mesh
        ),
    )
    return _less_mean(on_devices, replicate(mean, mesh)), mean


def replicate(values: np.ndarray, mesh: Mesh) -> Array:
    """The same host array, which all processes have, on every device."""
    return from_all_hosts(values, NamedSharding(mesh, P()))


def _in_chunks(values: np.ndarray, *, chunks: int, chunk: int, fill: int, mesh: Mesh) -> Array:
    shape = (mesh.size * chunks, chunk, *values.shape[1:])

    def read(index: tuple[slice, ...]) -> np.ndarray:
        start, stop, _ = index[0].indices(shape[0])
        part = values[start * chunk : stop * chunk]
        missing = (stop - start) * chunk - len(part)
        widths = [(0, missing)] + [(0, 0)] * (values.ndim - 1)
        return np.pad(part, widths, constant_values=fill).reshape(-1, *shape[1:])

    return jax.make_array_from_callback(shape, NamedSharding(mesh, P(mesh.axis_names)), read)


@functools.partial(jax.jit, donate_argnums=0)
def _less_mean(rows: Rows, mean: Array) -> Rows:
    return rows.replace(x=jnp.where((rows.ids >= 0)[..., None], rows.x - mean, 0.0))
