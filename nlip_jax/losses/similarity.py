"""How alike rows and columns are: the first choice of every contrastive objective.

A similarity is a function of two `Side`s' features and masks that gives `Similarity`, without a
temperature. It is bilinear or at least works on any block of rows and columns by itself, which is
what lets `losses/engine.py` go through the matrix tile by tile.
"""

from functools import partial

import flax.struct
import jax
import jax.numpy as jnp
from jax import Array


@flax.struct.dataclass
class Similarity:
    """Every row against every column, `[rows, columns]` in both; float32, or float64 from float64.

    Attributes:
        per_row: as a row sees its candidates, the columns.
        per_column: as a column sees its candidates, the rows.
    """

    per_row: Array
    per_column: Array


@partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def product(equation: str, dtype: str | None, a: Array, b: Array) -> Array:
    """A product of features, rounded to `dtype` if there is one, that is summed in float32."""
    if dtype is not None:
        a, b = a.astype(dtype), b.astype(dtype)
    return _einsum(equation, a, b)


def _einsum(equation: str, a: Array, b: Array) -> Array:
    # bfloat16 costs one pass of the matrix unit; float32 keeps its precision on devices that would
    # round it.
    wide = jnp.promote_types(jnp.promote_types(a.dtype, b.dtype), jnp.float32)
    return jnp.einsum(
        equation, a, b, precision=jax.lax.Precision.HIGHEST, preferred_element_type=wide
    )


def _product_forward(equation: str, dtype: str | None, a: Array, b: Array):
    return product(equation, dtype, a, b), (a, b)


def _product_backward(
    equation: str, dtype: str | None, kept: tuple[Array, Array], cotangent: Array
):
    of_a, of_b, of_product = equation.replace("->", ",").split(",")
    return tuple(
        _times_cotangent(f"{of_product},{of_other}->{of_one}", dtype, cotangent, other).astype(
            one.dtype
        )
        for one, other, of_one, of_other in (
            (*kept, of_a, of_b),
            (*kept[::-1], of_b, of_a),
        )
    )


def _times_cotangent(equation: str, dtype: str | None, cotangent: Array, other: Array) -> Array:
    if dtype is None:
        return _einsum(equation, cotangent, other)
    # The gradients of a row's positive and of its normaliser all but cancel, so rounded cotangents
    # would not do. Rounded twice, the second time what the first left, they take two passes of the
    # matrix unit where float32 takes six.
    other, high = other.astype(dtype), cotangent.astype(dtype)
    low = (cotangent - high.astype(cotangent.dtype)).astype(dtype)
    return _einsum(equation, high, other) + _einsum(equation, low, other)


product.defvjp(_product_forward, _product_backward)


def dot(
    rows: Array,
    columns: Array,
    row_mask: None = None,
    column_mask: None = None,
    *,
    dtype: str | None = None,
) -> Similarity:
    """Score by the dot product of embeddings (CLIP, arXiv 2103.00020).

    Args:
        rows: [r, d] L2-normalised, taken as they are.
        columns: [c, d] L2-normalised, taken as they are.
        row_mask: pooled embeddings have none.
        column_mask: pooled embeddings have none.
        dtype: that features are rounded to for the product; None: as they come.
    """
    del row_mask, column_mask
    scores = product("id,jd->ij", dtype, rows, columns)
    return Similarity(per_row=scores, per_column=scores)


def token_max(
    rows: Array,
    columns: Array,
    row_mask: Array | None = None,
    column_mask: Array | None = None,
    *,
    dtype: str | None = None,
) -> Similarity:
    """Score by late interaction (FILIP, arXiv 2111.07783).

    Every token of a row looks for its most similar token of the column, and the row's score is the
    mean over its tokens; the column's score is the mirror image, so the two differ. A row or column
    without any token scores 0 with everything.

    Args:
        rows: [r, p, d] L2-normalised tokens, taken as they are.
        columns: [c, l, d] L2-normalised tokens, taken as they are.
        row_mask: [r, p] bool, True on real tokens; all are real when left out.
        column_mask: [c, l] bool, True on real tokens; all are real when left out.
        dtype: that tokens are rounded to for the product; None: as they come.
    """
    if row_mask is None:
        row_mask = jnp.ones(rows.shape[:2], bool)
    if column_mask is None:
        column_mask = jnp.ones(columns.shape[:2], bool)
    # No pair of tokens is laid out twice: [r, p, c, l] is how the product comes.
    similarity = product("ipd,jld->ipjl", dtype, rows, columns)
    row_mask, column_mask = row_mask[:, :, None, None], column_mask[None, None]
    return Similarity(
        per_row=_mean(_best(similarity, column_mask, 3), row_mask, column_mask, axes=(1, 3)),
        per_column=_mean(_best(similarity, row_mask, 1), column_mask, row_mask, axes=(3, 1)),
    )


def _mean(best: Array, own: Array, others: Array, axes: tuple[int, int]) -> Array:
    """Mean over one side's real tokens, 0 where either side has none; axes of own and others."""
    counted = own & jnp.any(others, axis=axes[1], keepdims=True)
    total = jnp.sum(best, axis=axes, where=counted)
    return total / jnp.maximum(jnp.sum(own, axis=axes), 1)


@partial(jax.custom_vjp, nondiff_argnums=(2,))
def _best(similarity: Array, candidates: Array, axis: int) -> Array:
    """Maximum over the candidates, -inf without any; the axis stays.

    The gradient goes to the first that attains it. For the backward pass, autodiff of `max` would
    keep the similarities and masked copies of them, where the winners' positions are enough.
    """
    return _best_forward(similarity, candidates, axis)[0]


def _best_forward(similarity: Array, candidates: Array, axis: int):
    similarity = jnp.where(candidates, similarity, -jnp.inf)
    winner = jnp.argmax(similarity, axis=axis, keepdims=True)
    return jnp.max(similarity, axis=axis, keepdims=True), (winner, candidates)


def _best_backward(axis: int, kept: tuple[Array, Array], cotangent: Array):
    winner, candidates = kept
    position = jnp.arange(candidates.shape[axis]).reshape(
        [-1 if dimension == axis else 1 for dimension in range(4)]
    )
    return jnp.where(position == winner, cotangent, 0.0), None


_best.defvjp(_best_forward, _best_backward)


def aligned(
    similarity, rows: Array, columns: Array, row_mask: Array | None, column_mask: Array | None
) -> Similarity:
    """The similarities of row i and column i alone, `[b]` in both.

    Args:
        similarity: such as `dot`.
        rows: [b, ...] features.
        columns: [b, ...] features.
        row_mask: [b, ...] or None.
        column_mask: [b, ...] or None.
    """

    def one(*sides: Array | None) -> Similarity:
        found = similarity(*(None if side is None else side[None] for side in sides))
        return jax.tree.map(lambda value: value[0, 0], found)

    axes = tuple(None if mask is None else 0 for mask in (row_mask, column_mask))
    return jax.vmap(one, in_axes=(0, 0, *axes))(rows, columns, row_mask, column_mask)
