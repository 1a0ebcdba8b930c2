"""The plain definitions: whole matrices of logits, and JAX's own gradients.

`dense_sums` is what every other implementation has to agree with; `row_sums` gives each device its
rows of the matrix, against the columns of all.
"""

import jax
import jax.numpy as jnp
from jax import Array
from jax.sharding import Mesh
from jax.sharding import PartitionSpec as P

from nlip_jax.losses.sides import Affine, Problem, Side, Sums, masks


def _sums(
    problem: Problem, logits: Array, counted: Array | None, duplicate: Array | None, axis: int
) -> Sums:
    none = jnp.zeros(logits.shape[1 - axis], logits.dtype)
    return Sums(
        normaliser=problem.normaliser.dense(logits, counted, axis),
        total=jnp.sum(logits, axis, where=counted),
        duplicates=none if duplicate is None else jnp.sum(duplicate, axis, dtype=logits.dtype),
        duplicate_total=none if duplicate is None else jnp.sum(logits, axis, where=duplicate),
    )


def dense_sums(
    problem: Problem, rows: Side, columns: Side, affine: Affine
) -> tuple[Sums, Sums | None]:
    """Sums over all columns for the rows, and over all rows for the columns.

    Args:
        problem: what is summed.
        rows: [r].
        columns: [c].
        affine: from similarities to logits.

    Returns:
        Sums [r] and, if the problem goes both ways, sums [c].
    """
    logits = problem.logits(rows, columns, affine)
    places = (jnp.arange(len(side.features), dtype=jnp.int32) for side in (rows, columns))
    counted, duplicate = masks(problem, rows, columns, *places)
    of_rows = _sums(problem, logits.per_row, counted, duplicate, 1)
    if not problem.both_ways:
        return of_rows, None
    return of_rows, _sums(problem, logits.per_column, counted, duplicate, 0)


def row_sums(
    problem: Problem, rows: Side, columns: Side, affine: Affine, *, mesh: Mesh
) -> tuple[Sums, Sums | None]:
    """The same where rows and columns are split over all devices of a mesh."""
    axes = mesh.axis_names

    def gather(side: Side) -> Side:
        return jax.tree.map(lambda value: jax.lax.all_gather(value, axes, tiled=True), side)

    def places(side: Side, *, own: bool) -> Array:
        count = len(side.features)
        first = jax.lax.axis_index(axes) * count if own else 0
        return first + jnp.arange(count, dtype=jnp.int32)

    def local(rows: Side, columns: Side, affine: Affine) -> tuple[Sums, Sums | None]:
        every = gather(columns)
        logits = problem.logits(rows, every, affine).per_row
        found = masks(problem, rows, every, places(rows, own=True), places(every, own=False))
        of_rows = _sums(problem, logits, *found, 1)
        if not problem.both_ways:
            return of_rows, None
        every = gather(rows)
        logits = problem.logits(every, columns, affine).per_column
        found = masks(problem, every, columns, places(every, own=False), places(columns, own=True))
        return of_rows, _sums(problem, logits, *found, 0)

    return jax.shard_map(
        local,
        mesh=mesh,
        in_specs=(P(axes), P(axes), P()),
        out_specs=P(axes),
        check_vma=False,
    )(rows, columns, affine)
