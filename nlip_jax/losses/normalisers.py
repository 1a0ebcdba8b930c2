"""How logits compete: softmax over the candidates of a row, or a sigmoid for each pair by itself.

Both are log-partition functions: with targets t, the loss of a row is
`normaliser - sum_j t_j a_j`, and the derivative of the normaliser is the predicted probability.
An accumulator is what a tile-by-tile sum over the candidates needs to hold of each row.
"""

import dataclasses
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import Array

from nlip_jax.types import PyTree


@dataclasses.dataclass(frozen=True)
class Normaliser:
    """One way of turning logits into probabilities.

    Attributes:
        empty: (shape, dtype) -> accumulator that has seen nothing.
        add: (accumulator [n], logits, counted or None, axis) -> accumulator; candidates along axis.
        merge: (accumulator [n], axis names) -> that of all devices together.
        value: accumulator [n] -> normaliser [n]; 0 where nothing was counted.
        probability: (logits, normaliser that broadcasts to them) -> derivative of the latter.
        dense: (logits, counted or None, axis) -> normaliser, in one go.
        counts_every_positive: whether every positive of a row is a prediction by itself, rather
            than a share of one.
    """

    empty: Callable[[tuple[int, ...], jnp.dtype], PyTree]
    add: Callable[[PyTree, Array, Array | None, int], PyTree]
    merge: Callable[[PyTree, tuple[str, ...]], PyTree]
    value: Callable[[PyTree], Array]
    probability: Callable[[Array, Array], Array]
    dense: Callable[[Array, Array | None, int], Array]
    counts_every_positive: bool


def _finite(maximum: Array) -> Array:
    """A maximum over nothing is -inf, which must not meet itself in a difference."""
    return jnp.where(maximum == -jnp.inf, 0.0, maximum)


def _softmax_empty(shape: tuple[int, ...], dtype: jnp.dtype) -> tuple[Array, Array]:
    return jnp.full(shape, -jnp.inf, dtype), jnp.zeros(shape, dtype)


def _softmax_add(
    running: tuple[Array, Array], logits: Array, counted: Array | None, axis: int
) -> tuple[Array, Array]:
    """Online log-sum-exp (Milakov and Gimelshein, arXiv 1805.02867)."""
    highest, total = running
    if counted is not None:
        logits = jnp.where(counted, logits, -jnp.inf)
    new = jnp.maximum(highest, jnp.max(logits, axis))
    shift = _finite(new)
    shifted = jnp.exp(logits - jnp.expand_dims(shift, axis))
    return new, total * jnp.exp(highest - shift) + jnp.sum(shifted, axis)


def _softmax_merge(
    running: tuple[Array, Array], axes: tuple[str, ...]
) -> tuple[Array, Array]:
    highest, total = running
    new = jax.lax.pmax(highest, axes)
    return new, jax.lax.psum(total * jnp.exp(highest - _finite(new)), axes)


def _softmax_value(running: tuple[Array, Array]) -> Array:
    highest, total = running
    return jnp.where(total > 0, _finite(highest) + jnp.log(jnp.where(total > 0, total, 1.0)), 0.0)


def _softmax_dense(logits: Array, counted: Array | None, axis: int) -> Array:
    if counted is None:
        return jax.nn.logsumexp(logits, axis)
    # What counts nothing sums its own logits, and is put to 0 then: no -inf, and no NaN gradient.
    any_counted = jnp.any(counted, axis, keepdims=True)
    sums = jax.nn.logsumexp(logits, axis, where=counted | ~any_counted)
    return jnp.where(jnp.squeeze(any_counted, axis), sums, 0.0)


def _sigmoid_dense(logits: Array, counted: Array | None, axis: int) -> Array:
    return jnp.sum(jax.nn.softplus(logits), axis, where=counted)


SOFTMAX = Normaliser(
    empty=_softmax_empty,
    add=_softmax_add,
    merge=_softmax_merge,
    value=_softmax_value,
    probability=lambda logits, normaliser: jnp.exp(logits - normaliser),
    dense=_softmax_dense,
    counts_every_positive=False,
)

SIGMOID = Normaliser(
    empty=jnp.zeros,
    add=lambda running, logits, counted, axis: running + _sigmoid_dense(logits, counted, axis),
    merge=jax.lax.psum,
    value=lambda running: running,
    probability=lambda logits, normaliser: jax.nn.sigmoid(logits),
    dense=_sigmoid_dense,
    counts_every_positive=True,
)

NORMALISERS = {"softmax": SOFTMAX, "sigmoid": SIGMOID}
