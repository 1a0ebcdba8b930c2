"""Rows split over the devices of a mesh, and what is done on each of them."""

import dataclasses
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import Array
from jax.sharding import Mesh
from jax.sharding import PartitionSpec as P

from nlip_jax.losses.blocks import Part
from nlip_jax.losses.sides import Problem, Side
from nlip_jax.types import PyTree


@dataclasses.dataclass(frozen=True, kw_only=True)
class Layout:
    """How the work is laid out; hashable.

    Attributes:
        problem: what is summed.
        mesh: rows and columns are split over all of its devices; None: one device.
        tile: most rows and most columns of a tile.
    """

    problem: Problem
    mesh: Mesh | None
    tile: int

    @property
    def axes(self) -> tuple[str, ...]:
        """Names of the mesh's axes."""
        return () if self.mesh is None else self.mesh.axis_names

    @property
    def devices(self) -> int:
        """Number of devices."""
        return 1 if self.mesh is None else self.mesh.size

    def on_each_device(self, function: Callable, *, num_split: int) -> Callable:
        """The function of split arguments, and one more that is the same on every device."""
        if self.mesh is None:
            return function
        split = P(self.axes)
        return jax.shard_map(
            function,
            mesh=self.mesh,
            in_specs=(*[split] * num_split, P()),
            out_specs=split,
            check_vma=False,
        )

    # --- what follows is called on a device ---------------------------------------------------

    def own(self, side: Side) -> Part:
        """This device's part of a side, rounded before it is sent anywhere."""
        count = len(side.features)
        if self.problem.dtype is not None:
            side = side.replace(features=side.features.astype(self.problem.dtype))
        return Part(side=side, place=self.first(count) + jnp.arange(count, dtype=jnp.int32))

    def first(self, count: int) -> Array | int:
        """Place of this device's first row, where each has so many."""
        return 0 if self.mesh is None else jax.lax.axis_index(self.axes) * count

    def gather(self, tree: PyTree) -> PyTree:
        """The rows of all devices."""
        if self.mesh is None:
            return tree
        return jax.tree.map(lambda a: jax.lax.all_gather(a, self.axes, tiled=True), tree)
