"""Which patches of an image stay visible (MAE, arXiv:2111.06377; FLIP, arXiv:2212.00794)."""

import jax
import jax.numpy as jnp

from nlip_jax.types import Array


def random_visible(keys: Array, *, num_patches: int, num_visible: int) -> Array:
    """Draws patches without replacement, every set of them equally likely.

    Args:
      keys: `[b]`, one random key an example, used for nothing else.
      num_patches: p, of an image.
      num_visible: v, of them to draw.

    Returns:
      `[b, v]` int32, ascending.
    """
    numbers = jax.vmap(lambda key: jax.random.uniform(key, (num_patches,)))(keys)
    drawn = jnp.argsort(numbers, axis=1)[:, :num_visible]
    return jnp.sort(drawn, axis=1).astype(jnp.int32)


def num_visible(num_patches: int, *, mask_ratio: float) -> int:
    """Patches that stay visible: the nearest number to (1 - mask_ratio) of them, at least 1."""
    return max(1, round(num_patches * (1 - mask_ratio)))
