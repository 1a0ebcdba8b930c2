"""Tile by tile on one device or many: online sums forward, recomputation backward.

With many devices, each goes through its rows. Here they gather the columns of all; in `ring.py`
columns travel.
"""

import dataclasses
import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import Array
from jax.sharding import Mesh

from nlip_jax.losses import blocks, ring
from nlip_jax.losses.blocks import Cotangents, Gradients, Running
from nlip_jax.losses.layout import Layout
from nlip_jax.losses.sides import Affine, Problem, Side, Sums


def tiled_sums(
    problem: Problem,
    rows: Side,
    columns: Side,
    affine: Affine,
    *,
    mesh: Mesh | None,
    tile: int,
    travels: bool = False,
) -> tuple[Sums, Sums | None]:
    """The sums of `dense.dense_sums`, and their gradients, tile by tile.

    Args:
        problem: what is summed.
        rows: [r], divisible by the devices.
        columns: [c], divisible by the devices.
        affine: from similarities to logits.
        mesh: rows and columns are split over all of its devices; None: one device.
        tile: most rows and most columns of a tile.
        travels: columns go from device to device rather than being gathered.
    """
    several = mesh is not None and mesh.size > 1
    layout = Layout(problem=problem, mesh=mesh if several else None, tile=tile)
    walk = _RING if travels and several else _GATHERED
    features = rows.features, columns.features
    context = [side.replace(features=None) for side in (rows, columns)]
    return _sums(layout, walk, features, affine, context)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def _sums(
    layout: Layout,
    walk: "_Walk",
    features: tuple[Array, Array],
    affine: Affine,
    context: list[Side],
) -> tuple[Sums, Sums | None]:
    def on_device(*inputs) -> list[Sums | None]:
        return [found and found.finish(layout.problem) for found in walk.forward(layout, *inputs)]

    sides = _sides(features, context)
    of_rows, of_columns = layout.on_each_device(on_device, num_split=2)(*sides, affine)
    return of_rows, of_columns


def _sums_forward(layout: Layout, walk: "_Walk", *inputs):
    sums = _sums(layout, walk, *inputs)
    return sums, (inputs, [found and found.normaliser for found in sums])


def _sums_backward(
    layout: Layout, walk: "_Walk", kept: tuple, cotangents: tuple[Sums, Sums | None]
):
    (features, affine, context), normalisers = kept
    of_sums = [
        given
        and Cotangents(
            normaliser=normaliser,
            of_normaliser=given.normaliser,
            of_total=given.total,
            of_duplicate_total=given.duplicate_total,
        )
        for given, normaliser in zip(cotangents, normalisers, strict=True)
    ]

    def on_device(*inputs) -> Gradients:
        found = walk.backward(layout, *inputs)
        # Split like all else, to be added up outside.
        return found.replace(scale=found.scale[None], bias=found.bias[None])

    run = layout.on_each_device(on_device, num_split=3)
    found = run(*_sides(features, context), of_sums, affine)
    return (
        (found.rows.astype(features[0].dtype), found.columns.astype(features[1].dtype)),
        Affine(
            scale=jnp.sum(found.scale).astype(affine.scale.dtype),
            bias=jnp.sum(found.bias).astype(affine.bias.dtype),
        ),
        None,
    )


_sums.defvjp(_sums_forward, _sums_backward)


def _sides(features: tuple[Array, Array], context: list[Side]) -> list[Side]:
    return [side.replace(features=x) for side, x in zip(context, features, strict=True)]


# --- on one device of the mesh, with the columns of all ------------------------------------------


def _forward(
    layout: Layout, rows: Side, columns: Side, affine: Affine
) -> tuple[Running, Running | None]:
    problem = layout.problem
    every = layout.gather(layout.own(columns))
    row_sums, column_sums = blocks.forward(
        problem,
        layout.own(rows),
        every,
        affine,
        row_sums=blocks.nothing_seen(problem, rows),
        column_sums=blocks.nothing_seen(problem, every.side) if problem.both_ways else None,
        tile=layout.tile,
    )
    if column_sums is None or layout.mesh is None:
        return row_sums, column_sums
    sums = {
        field.name: getattr(column_sums, field.name) for field in dataclasses.fields(column_sums)
    }
    normaliser = problem.normaliser.merge(sums.pop("normaliser"), layout.axes)
    merged = Running(normaliser=normaliser, **jax.lax.psum(sums, layout.axes))
    count = len(columns.features)
    return row_sums, jax.tree.map(
        lambda a: jax.lax.dynamic_slice_in_dim(a, layout.first(count), count), merged
    )


def _backward(
    layout: Layout,
    rows: Side,
    columns: Side,
    of_sums: list[Cotangents | None],
    affine: Affine,
) -> Gradients:
    of_row_sums, of_column_sums = of_sums
    every, of_column_sums = layout.gather((layout.own(columns), of_column_sums))
    found = blocks.backward(
        layout.problem,
        layout.own(rows),
        every,
        affine,
        of_row_sums=of_row_sums,
        of_column_sums=of_column_sums,
        before=blocks.no_gradients(rows, every.side),
        tile=layout.tile,
    )
    if layout.mesh is None:
        return found
    return found.replace(columns=jax.lax.psum_scatter(found.columns, layout.axes, tiled=True))


@dataclasses.dataclass(frozen=True)
class _Walk:
    """How each device's rows meet the columns of all."""

    forward: Callable[..., tuple[Running, Running | None]]
    backward: Callable[..., Gradients]


_GATHERED = _Walk(_forward, _backward)
_RING = _Walk(ring.forward, ring.backward)
