"""What a contrastive loss is computed from: two sides, and the rule for what is alike."""

import dataclasses
from collections.abc import Callable

import flax.struct
import jax
import jax.numpy as jnp
from jax import Array

from nlip_jax.losses.normalisers import Normaliser
from nlip_jax.losses.similarity import Similarity, aligned


@flax.struct.dataclass
class Side:
    """The images or the texts of a batch, or any other candidates; n of them.

    Attributes:
        features: [n, d] embeddings or [n, tokens, d] of tokens, as the similarity takes them.
        mask: [n, tokens] bool, False on padding tokens; None where there are none.
        valid: [n] bool, False on what only fills up a batch; None: all count.
        keys: int32 arrays [n, w]; two are duplicates when they agree in a whole row of one of them.
    """

    features: Array
    mask: Array | None = None
    valid: Array | None = None
    keys: tuple[Array, ...] = ()


@flax.struct.dataclass
class Affine:
    """From similarities to logits: scale * similarity + bias, both [] float32."""

    scale: Array
    bias: Array

    def __call__(self, similarity: Array) -> Array:
        """The logits of similarities."""
        return self.scale * similarity + self.bias


@flax.struct.dataclass
class Sums:
    """What an engine finds out about every row of logits a_ij, over the columns j that count.

    Attributes:
        normaliser: [n] such as log sum_j exp(a_ij).
        total: [n] sum_j a_ij.
        duplicates: [n] number of other columns that are the row's own all the same; 0 without keys.
        duplicate_total: [n] their sum of a_ij.
    """

    normaliser: Array
    total: Array
    duplicates: Array
    duplicate_total: Array


@dataclasses.dataclass(frozen=True, kw_only=True)
class Problem:
    """What is summed; hashable, so that one problem is compiled once.

    Attributes:
        similarity: such as `similarity.dot`.
        normaliser: such as `normalisers.SOFTMAX`.
        ignore_duplicates: whether duplicates are left out of all sums but their own.
        both_ways: whether the columns look at the rows as well.
        dtype: that features are rounded to where they are multiplied; None: as they come.
    """

    similarity: Callable[..., Similarity]
    normaliser: Normaliser
    ignore_duplicates: bool = False
    both_ways: bool = True
    dtype: str | None = None

    def compare(self, *sides: Array | None) -> Similarity:
        """The similarity of features and masks."""
        return self.similarity(*sides, dtype=self.dtype)

    def logits(self, rows: Side, columns: Side, affine: Affine) -> Similarity:
        """Every row against every column."""
        found = self.compare(rows.features, columns.features, rows.mask, columns.mask)
        return jax.tree.map(affine, found)

    def own_logits(self, rows: Side, columns: Side, affine: Affine) -> Similarity:
        """The logits of row i and column i, `[n]` each."""
        found = aligned(self.compare, rows.features, columns.features, rows.mask, columns.mask)
        return jax.tree.map(affine, found)


def masks(
    problem: Problem, rows: Side, columns: Side, row_place: Array, column_place: Array
) -> tuple[Array | None, Array | None]:
    """Which pairs count, and which of them are duplicates.

    Args:
        problem: as of the engine.
        rows: r of them.
        columns: c of them.
        row_place: [r] int32 place among all rows; a row is no duplicate of the column there.
        column_place: [c] int32.

    Returns:
        counted, duplicate: [r, c] bool, or None where all count or none can be a duplicate.
    """
    counted = None
    if rows.valid is not None or columns.valid is not None:
        counted = jnp.ones((len(row_place), len(column_place)), bool)
        counted = counted if rows.valid is None else counted & rows.valid[:, None]
        counted = counted if columns.valid is None else counted & columns.valid[None]
    if not rows.keys:
        return counted, None
    duplicate = jnp.zeros((), bool)
    for ours, theirs in zip(rows.keys, columns.keys, strict=True):
        same = [a[:, None] == b[None] for a, b in zip(ours.T, theirs.T, strict=True)]
        duplicate |= jnp.stack(same).all(0) if len(same) > 1 else same[0]
    duplicate &= row_place[:, None] != column_place[None]
    if counted is not None:
        duplicate &= counted
    if problem.ignore_duplicates:
        counted = ~duplicate if counted is None else counted & ~duplicate
    return counted, duplicate


def clean(side: Side) -> Side:
    """The side with zeros where it is not valid, so that nothing there reaches a gradient."""
    if side.valid is None:
        return side
    kept = side.valid.reshape(-1, *[1] * (side.features.ndim - 1))
    return side.replace(features=jnp.where(kept, side.features, 0))
