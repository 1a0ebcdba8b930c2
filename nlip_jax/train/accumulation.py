"""A batch in parts that go through the towers in turn."""

import dataclasses
import math

import jax
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from nlip_jax.sharding import BATCH_AXES
from nlip_jax.types import Array, PyTree


@dataclasses.dataclass(frozen=True)
class MicroBatches:
    """Cuts batches into parts of equal size and joins what came of them.

    Part m is the m-th part of the rows of each device, so that no row changes its device.

    Attributes:
      count: number of parts, `m`.
      mesh: that the batch is split over.
    """

    count: int
    mesh: Mesh

    @property
    def num_devices(self) -> int:
        """Devices that the rows of a batch are split over."""
        return math.prod(self.mesh.shape[axis] for axis in BATCH_AXES)

    def split(self, tree: PyTree) -> PyTree:
        """`[b, ...]` to `[m, b / m, ...]`, each part split over the devices by row."""

        def cut(x: Array) -> Array:
            rows = len(x) // (self.num_devices * self.count)
            x = self._place(x.reshape(self.num_devices, self.count, rows, *x.shape[1:]), axis=0)
            x = self._place(x.swapaxes(0, 1), axis=1)
            return self._place(x.reshape(self.count, -1, *x.shape[3:]), axis=1)

        return jax.tree.map(cut, tree)

    def join(self, tree: PyTree) -> PyTree:
        """`[m, b / m, ...]` to `[b, ...]`, the rows in their places: undoes `split`."""

        def merge(x: Array) -> Array:
            rows = x.shape[1] // self.num_devices
            x = self._place(x, axis=1)
            x = self._place(x.reshape(self.count, self.num_devices, rows, *x.shape[2:]), axis=1)
            x = self._place(x.swapaxes(0, 1), axis=0)
            return self._place(x.reshape(-1, *x.shape[3:]), axis=0)

        return jax.tree.map(merge, tree)

    def _place(self, x: Array, *, axis: int) -> Array:
        spec = PartitionSpec(*[None] * axis, BATCH_AXES)
        return jax.lax.with_sharding_constraint(x, NamedSharding(self.mesh, spec))
