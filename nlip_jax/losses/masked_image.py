"""How well hidden patches of images are reconstructed."""

import einops
import jax
import jax.numpy as jnp
from jax import Array


def reconstruction_loss(
    predicted: Array, image: Array, visible: Array, *, patch_size: int, normalise: bool = True
) -> Array:
    """Mean squared error of the pixels of hidden patches (MAE, arXiv 2111.06377, section 3).

    Args:
        predicted: [b, p, q] for all p patches of an image, in rows; q = 3 * patch_size ** 2 values
            of a patch, row by row, with the channels of a pixel side by side.
        image: [b, h, w, 3] in [-1, 1].
        visible: [b, v] int32, the patches that the encoder saw, which do not count.
        patch_size: pixels along one side of a patch.
        normalise: predict each patch less its mean and over its deviation, as MAE does; variance
            with a divisor of q - 1 and 1e-6 added to it, as MAE's published code has it.

    Returns:
        [b] float32: the mean over an image's hidden patches; 0 where none is hidden.
    """
    wide = jnp.promote_types(predicted.dtype, jnp.float32)
    target = einops.rearrange(
        image.astype(wide), "b (h y) (w x) c -> b (h w) (y x c)", y=patch_size, x=patch_size
    )
    if normalise:
        mean = jnp.mean(target, axis=-1, keepdims=True)
        variance = jnp.var(target, axis=-1, keepdims=True, ddof=1)
        target = (target - mean) * jax.lax.rsqrt(variance + 1e-6)
    error = jnp.mean(jnp.square(predicted.astype(wide) - target), axis=-1)
    is_patch = visible[:, :, None] == jnp.arange(error.shape[1])
    is_hidden = ~jnp.any(is_patch, axis=1)
    total = jnp.sum(error, axis=-1, where=is_hidden)
    return total / jnp.maximum(jnp.sum(is_hidden, axis=-1), 1)
