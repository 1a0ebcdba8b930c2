"""A block of rows against a block of columns, tile by tile, forward and backward.

Neither direction ever holds more than one tile of logits: the backward pass computes each again
and turns it into gradients at once. Works on one device; `tiled.py` and `ring.py` join devices.
"""

import flax.struct
import jax
import jax.numpy as jnp
from jax import Array

from nlip_jax.losses.sides import Affine, Problem, Side, Sums, masks
from nlip_jax.losses.similarity import Similarity
from nlip_jax.types import PyTree

Masks = tuple[Array | None, Array | None]  # what counts, and what is a duplicate


@flax.struct.dataclass
class Part:
    """Some rows or columns with their place among all: int32 [n]."""

    side: Side
    place: Array


@flax.struct.dataclass
class Running:
    """Sums of n rows over the columns seen so far; None for duplicates where there are no keys."""

    normaliser: PyTree
    total: Array
    duplicates: Array | None
    duplicate_total: Array | None

    def finish(self, problem: Problem) -> Sums:
        """The sums, once all columns were seen."""
        none = jnp.zeros_like(self.total)
        return Sums(
            normaliser=problem.normaliser.value(self.normaliser),
            total=self.total,
            duplicates=none if self.duplicates is None else self.duplicates,
            duplicate_total=none if self.duplicate_total is None else self.duplicate_total,
        )


@flax.struct.dataclass
class Cotangents:
    """What the backward pass needs of n rows: their normaliser, and the cotangent of each sum."""

    normaliser: Array
    of_normaliser: Array
    of_total: Array
    of_duplicate_total: Array


def sum_dtype(side: Side) -> jnp.dtype:
    """Of logits and their sums."""
    return jnp.promote_types(side.features.dtype, jnp.float32)


def nothing_seen(problem: Problem, side: Side) -> Running:
    """The sums before the first block."""
    shape, dtype = side.features.shape[:1], sum_dtype(side)
    zeros = jnp.zeros(shape, dtype)
    return Running(
        normaliser=problem.normaliser.empty(shape, dtype),
        total=zeros,
        duplicates=zeros if side.keys else None,
        duplicate_total=zeros if side.keys else None,
    )


def _num_tiles(count: int, tile: int) -> int:
    return -(-count // max(1, min(tile, count)))


def _fill_up(part: Part, other: PyTree, tile: int) -> tuple[Part, PyTree]:
    """As many rows as equal tiles need; what is added does not count."""
    count = len(part.place)
    missing = -count % _num_tiles(count, tile)
    if not missing:
        return part, other
    if part.side.valid is None:
        part = part.replace(side=part.side.replace(valid=jnp.ones(count, bool)))

    def pad(a: Array) -> Array:
        return jnp.pad(a, [(0, missing)] + [(0, 0)] * (a.ndim - 1))

    return jax.tree.map(pad, (part, other))


def _cut(tree: PyTree, tiles: int) -> PyTree:
    """[n, ...] -> [tiles, n / tiles, ...]."""
    return jax.tree.map(lambda a: a.reshape(tiles, a.shape[0] // tiles, *a.shape[1:]), tree)


def _join(tree: PyTree, count: int) -> PyTree:
    """The inverse of `_cut`, without what was filled up."""
    return jax.tree.map(lambda a: a.reshape(-1, *a.shape[2:])[:count], tree)


def _add(
    problem: Problem, running: Running, logits: Array, seen: Masks, *, axis: int
) -> Running:
    counted, duplicate = seen
    new = running.replace(
        normaliser=problem.normaliser.add(running.normaliser, logits, counted, axis),
        total=running.total + jnp.sum(logits, axis, where=counted),
    )
    if duplicate is None:
        return new
    return new.replace(
        duplicates=running.duplicates + jnp.sum(duplicate, axis, dtype=logits.dtype),
        duplicate_total=running.duplicate_total + jnp.sum(logits, axis, where=duplicate),
    )


def forward(
    problem: Problem,
    rows: Part,
    columns: Part,
    affine: Affine,
    *,
    row_sums: Running,
    column_sums: Running | None,
    tile: int,
) -> tuple[Running, Running | None]:
    """Adds a block of logits to the sums of its rows and, where given, of its columns.

    Args:
        problem: what is summed.
        rows: [r].
        columns: [c].
        affine: from similarities to logits.
        row_sums: [r] so far.
        column_sums: [c] so far; None where the problem goes one way.
        tile: most rows and most columns of a tile.
    """

    counts = len(rows.place), len(columns.place)
    num_rows, num_columns = (_num_tiles(count, tile) for count in counts)
    own = _cut(_fill_up(rows, row_sums, tile), num_rows)
    columns, column_sums = _cut(_fill_up(columns, column_sums, tile), num_columns)

    def along_rows(column_sums: Running | None, own: tuple[Part, Running]):
        row, row_sums = own

        def along_columns(row_sums: Running, other: tuple[Part, Running | None]):
            column, column_sums = other
            logits = problem.logits(row.side, column.side, affine)
            seen = masks(problem, row.side, column.side, row.place, column.place)
            row_sums = _add(problem, row_sums, logits.per_row, seen, axis=1)
            if column_sums is not None:
                column_sums = _add(problem, column_sums, logits.per_column, seen, axis=0)
            return row_sums, column_sums

        row_sums, column_sums = jax.lax.scan(along_columns, row_sums, (columns, column_sums))
        return column_sums, row_sums

    column_sums, row_sums = jax.lax.scan(along_rows, column_sums, own)
    return _join(row_sums, counts[0]), _join(column_sums, counts[1])


@flax.struct.dataclass
class Gradients:
    """Gradients of a block: of features [r, ...] and [c, ...], of the scale and of the bias."""

    rows: Array
    columns: Array
    scale: Array
    bias: Array


def _weights(
    problem: Problem, of_sums: Cotangents, logits: Array, seen: Masks, *, axis: int
) -> Array:
    """The gradient of every logit, [r, c]."""
    counted, duplicate = seen

    def spread(value: Array) -> Array:
        return jnp.expand_dims(value, axis)

    probability = problem.normaliser.probability(logits, spread(of_sums.normaliser))
    weights = spread(of_sums.of_normaliser) * probability + spread(of_sums.of_total)
    if counted is not None:
        weights = jnp.where(counted, weights, 0.0)
    if duplicate is not None:
        weights += jnp.where(duplicate, spread(of_sums.of_duplicate_total), 0.0)
    return weights


def backward(
    problem: Problem,
    rows: Part,
    columns: Part,
    affine: Affine,
    *,
    of_row_sums: Cotangents,
    of_column_sums: Cotangents | None,
    before: Gradients,
    tile: int,
) -> Gradients:
    """Adds the gradients of a block to those of the blocks before.

    Args:
        problem: what was summed.
        rows: [r].
        columns: [c].
        affine: from similarities to logits.
        of_row_sums: [r].
        of_column_sums: [c], None where the problem goes one way.
        before: gradients so far.
        tile: most rows and most columns of a tile.
    """

    counts = len(rows.place), len(columns.place)
    num_rows, num_columns = (_num_tiles(count, tile) for count in counts)
    own = _cut(_fill_up(rows, (of_row_sums, before.rows), tile), num_rows)
    others = _cut(_fill_up(columns, (of_column_sums, before.columns), tile), num_columns)
    columns, (of_column_sums, of_columns) = others

    def along_rows(carry: tuple, own: tuple[Part, tuple[Cotangents, Array]]):
        (of_columns, *scalars), (row, (of_row_sums, of_row)) = carry, own

        def along_columns(carry: tuple, other: tuple[Part, Cotangents | None, Array]):
            (of_row, of_scale, of_bias), (column, of_column_sums, of_column) = carry, other
            found = _tile_gradients(
                problem, row, column, affine, of_row_sums=of_row_sums, of_column_sums=of_column_sums
            )
            scalars = of_scale + found.scale, of_bias + found.bias
            return (of_row + found.rows, *scalars), of_column + found.columns

        (of_row, *scalars), of_columns = jax.lax.scan(
            along_columns, (of_row, *scalars), (columns, of_column_sums, of_columns)
        )
        return (of_columns, *scalars), of_row

    start = of_columns, before.scale, before.bias
    (of_columns, of_scale, of_bias), of_rows = jax.lax.scan(along_rows, start, own)
    return Gradients(
        rows=_join(of_rows, counts[0]),
        columns=_join(of_columns, counts[1]),
        scale=of_scale,
        bias=of_bias,
    )


def _tile_gradients(
    problem: Problem,
    row: Part,
    column: Part,
    affine: Affine,
    *,
    of_row_sums: Cotangents,
    of_column_sums: Cotangents | None,
) -> Gradients:
    """The gradients that one tile of logits, computed again, leads back."""

    def similarity(row_features: Array, column_features: Array) -> Similarity:
        return problem.compare(row_features, column_features, row.side.mask, column.side.mask)

    # Gradients have the dtype of what they are of: in that of the sums, none is rounded.
    features = [part.side.features.astype(sum_dtype(part.side)) for part in (row, column)]
    found, pull_back = jax.vjp(similarity, *features)
    seen = masks(problem, row.side, column.side, row.place, column.place)
    weights = _weights(problem, of_row_sums, affine(found.per_row), seen, axis=1)
    per_row, of_scale, of_bias = affine.scale * weights, weights * found.per_row, weights
    per_column = jnp.zeros_like(per_row)
    if of_column_sums is not None:
        weights = _weights(problem, of_column_sums, affine(found.per_column), seen, axis=0)
        per_column = affine.scale * weights
        of_scale, of_bias = of_scale + weights * found.per_column, of_bias + weights
    of_rows, of_columns = pull_back(found.replace(per_row=per_row, per_column=per_column))
    return Gradients(
        rows=of_rows, columns=of_columns, scale=jnp.sum(of_scale), bias=jnp.sum(of_bias)
    )


def no_gradients(rows: Side, columns: Side) -> Gradients:
    """Zeros, in the precision of sums: gradients add up over many tiles."""
    dtype = jnp.promote_types(sum_dtype(rows), sum_dtype(columns))
    return Gradients(
        rows=jnp.zeros(rows.features.shape, dtype),
        columns=jnp.zeros(columns.features.shape, dtype),
        scale=jnp.zeros((), dtype),
        bias=jnp.zeros((), dtype),
    )
