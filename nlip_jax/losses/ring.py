"""Columns that travel: no device ever holds those of all.

Each device keeps its rows. Blocks of columns go round all devices, with what they have summed so
far, and come home with the whole: one half of a device's columns in each direction, for links carry
both at once (as SigLIP's neighbours do, arXiv 2303.15343, for a sigmoid and in one direction).
"""

import jax
import jax.numpy as jnp

from nlip_jax.losses import blocks
from nlip_jax.losses.blocks import Cotangents, Gradients, Running
from nlip_jax.losses.layout import Layout
from nlip_jax.losses.sides import Affine, Side
from nlip_jax.types import PyTree

Way = list[tuple[int, int]]  # from which device to which


def _depart(layout: Layout, tree: PyTree) -> tuple[list[PyTree], list[Way]]:
    """What travels, cut in two, and the way that each half goes."""
    n, count = layout.devices, jax.tree.leaves(tree)[0].shape[0]
    half = -(-count // 2)
    parts = [(slice(0, half), 1), (slice(half, count), -1)]
    parts = [(part, step) for part, step in parts if part.start < part.stop]
    guests = [jax.tree.map(lambda a, part=part: a[part], tree) for part, _ in parts]
    return guests, [[(i, (i + step) % n) for i in range(n)] for _, step in parts]


def _send(layout: Layout, tree: PyTree, way: Way) -> PyTree:
    return jax.tree.map(lambda a: jax.lax.ppermute(a, layout.axes, way), tree)


def forward(
    layout: Layout, rows: Side, columns: Side, affine: Affine
) -> tuple[Running, Running | None]:
    """Sums of this device's rows and columns; called on each device.

    Args:
        layout: problem, mesh and tile.
        rows: [r] of this device.
        columns: [c] of this device.
        affine: from similarities to logits.
    """
    problem, own = layout.problem, layout.own(rows)
    nothing = blocks.nothing_seen(problem, columns) if problem.both_ways else None
    guests, ways = _depart(layout, (layout.own(columns), nothing))

    def visit(_: int, carry: tuple[Running, list]) -> tuple[Running, list]:
        row_sums, guests = carry
        sent = []
        for (guest, so_far), way in zip(guests, ways, strict=True):
            # The columns are on their way to the next device while this one works on them.
            ahead = _send(layout, guest, way)
            row_sums, guest_sums = blocks.forward(
                problem,
                own,
                guest,
                affine,
                row_sums=row_sums,
                column_sums=so_far,
                tile=layout.tile,
            )
            sent.append((ahead, _send(layout, guest_sums, way)))
        return row_sums, sent

    # After as many steps as there are devices, every guest is home.
    start = blocks.nothing_seen(problem, rows), guests
    row_sums, home = jax.lax.fori_loop(0, layout.devices, visit, start)
    if not problem.both_ways:
        return row_sums, None
    return row_sums, jax.tree.map(lambda *a: jnp.concatenate(a), *(sums for _, sums in home))


def backward(
    layout: Layout,
    rows: Side,
    columns: Side,
    of_sums: list[Cotangents | None],
    affine: Affine,
) -> Gradients:
    """Gradients of this device's rows and columns; called on each device.

    Args:
        layout: problem, mesh and tile.
        rows: [r] of this device.
        columns: [c] of this device.
        of_sums: [r] and, None where the problem goes one way, [c].
        affine: from similarities to logits.
    """
    of_row_sums, of_column_sums = of_sums
    own, start = layout.own(rows), blocks.no_gradients(rows, columns)
    guests, ways = _depart(layout, (layout.own(columns), of_column_sums, start.columns))

    def visit(_: int, carry: tuple[Gradients, list]) -> tuple[Gradients, list]:
        found, guests = carry
        sent = []
        for (guest, of_guest_sums, of_guest), way in zip(guests, ways, strict=True):
            ahead = _send(layout, (guest, of_guest_sums), way)
            after = blocks.backward(
                layout.problem,
                own,
                guest,
                affine,
                of_row_sums=of_row_sums,
                of_column_sums=of_guest_sums,
                before=found.replace(columns=of_guest),
                tile=layout.tile,
            )
            found = after.replace(columns=None)
            sent.append((*ahead, _send(layout, after.columns, way)))
        return found, sent

    found, home = jax.lax.fori_loop(
        0, layout.devices, visit, (start.replace(columns=None), guests)
    )
    return found.replace(columns=jnp.concatenate([of_columns for *_, of_columns in home]))
