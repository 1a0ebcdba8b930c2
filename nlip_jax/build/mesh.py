"""Mesh of a config, and where parameters live on it."""

from jax.sharding import Mesh
from ml_collections import ConfigDict

from nlip_jax import sharding
from nlip_jax.placement import Placement


def make_mesh(config: ConfigDict, *, trains: bool = True) -> Mesh:
    """The mesh, checked against the batches that it has to share where it trains."""
    axes = {name: config.mesh[name] for name in (*sharding.AXES, "slices")}
    mesh = sharding.make_mesh(**axes)
    if trains:
        sharding.check_batch(config.batch_size, mesh, field="batch_size")
    return mesh


def make_placement(config: ConfigDict, *, mesh: Mesh) -> Placement:
    """The parameter rules."""
    return Placement(
        mesh=mesh,
        rules=tuple(config.mesh.rules),
        fsdp_min_bytes=config.mesh.fsdp_min_bytes,
        max_replicated=config.mesh.max_replicated,
    )
