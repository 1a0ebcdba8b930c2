"""The same image or the same caption twice in a batch: no negative, if the loss is told."""

import jax.numpy as jnp
from jax import Array

# Two 32-bit hashes with different multipliers: that two captions of a batch of a million share both
# has a chance of 3e-8.
_MULTIPLIERS = (0x9E3779B1, 0x85EBCA77)


def caption_keys(tokens: Array) -> Array:
    """Two numbers that are the same for the same tokens and, in all likelihood, for no others.

    Args:
        tokens: [b, l] int32.

    Returns:
        [b, 2] int32.
    """
    words = tokens.astype(jnp.uint32) + jnp.uint32(1)
    keys = []
    for multiplier in _MULTIPLIERS:
        key = jnp.zeros(tokens.shape[:1], jnp.uint32)
        for place in range(tokens.shape[1]):
            key = (key ^ words[:, place]) * jnp.uint32(multiplier)
            key ^= key >> 15
        keys.append(key)
    return jnp.stack(keys, axis=1).astype(jnp.int32)


def image_keys(image_id: Array) -> Array:
    """Keys of images, from the numbers they have in their data set: [b] int32 -> [b, 1]."""
    return image_id[:, None]
