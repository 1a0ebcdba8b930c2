"""Dropout whose masks hang on the example, not on the batch it came in.

Every example has a random key of its own, made of the key of the step and the example's place in
the global batch. So its masks are the same whichever devices share the batch and in however many
parts it goes through the towers: what is computed twice, or elsewhere, is computed alike.
"""

import jax
import jax.numpy as jnp

from nlip_jax.types import Array


def example_keys(rng: Array, row: Array) -> Array:
    """One random key an example.

    Args:
      rng: a key, of the step.
      row: `[b]` int32, the examples' places in the global batch.

    Returns:
      `[b]` keys.
    """
    return jax.vmap(jax.random.fold_in, in_axes=(None, 0))(rng, row)


def fold(keys: Array | None, number: int | Array) -> Array | None:
    """Keys of a part of a model, by its number: `[b]` to `[b]`; None stays None."""
    if keys is None:
        return None
    return jax.vmap(jax.random.fold_in, in_axes=(0, None))(keys, number)


def dropout(x: Array, keys: Array | None, rate: float) -> Array:
    """Sets values to zero at random and scales up the others (Srivastava et al., 2014).

    Args:
      x: `[b, ...]`.
      keys: `[b]`, used for nothing else; None outside training: x stays as it is.
      rate: share that becomes zero, in [0, 1).

    Returns:
      `[b, ...]` in the dtype of x, of the same expectation.
    """
    if keys is None:
        return x
    keep = 1.0 - rate
    kept = jax.vmap(lambda key: jax.random.bernoulli(key, keep, x.shape[1:]))(keys)
    return jnp.where(kept, x / keep, jnp.zeros((), x.dtype))
