"""Logits of a contrastive loss: how alike every image and every text of the global batch are."""

from functools import partial

import flax.struct
import jax
import jax.numpy as jnp
from jax import Array


@flax.struct.dataclass
class Logits:
    """Similarity times `logit_scale`, seen from both sides; row i and column i are pair i.

    Attributes:
        per_image: [b_images, b_texts] float32, one row of candidate texts for every image.
        per_text: [b_texts, b_images] float32, one row of candidate images for every text.
    """

    per_image: Array
    per_text: Array


# Features are multiplied as they come and summed in float32: bfloat16 features cost one pass of
# the matrix unit, float32 features keep their precision on devices that would round them.
_product = partial(
    jnp.einsum, precision=jax.lax.Precision.HIGHEST, preferred_element_type=jnp.float32
)


def dot_similarity(image_embed: Array, text_embed: Array, logit_scale: Array | float) -> Logits:
    """Score pairs by the dot product of their embeddings (CLIP, arXiv 2103.00020).

    Args:
        image_embed: [b, d] L2-normalised, taken as it is.
        text_embed: [b, d] L2-normalised, taken as it is.
        logit_scale: [] inverse temperature.
    """
    per_image = logit_scale * _product("id,jd->ij", image_embed, text_embed)
    return Logits(per_image=per_image, per_text=per_image.T)


def token_max_similarity(
    image_tokens: Array,
    text_tokens: Array,
    text_mask: Array,
    logit_scale: Array | float,
    image_mask: Array | None = None,
) -> Logits:
    """Score pairs by late interaction (FILIP, arXiv 2111.07783, equations 3 to 5).

    Every image token looks for its most similar text token, and the image's score is the mean over
    its tokens; the text's score is the mirror image, so the two matrices differ. An image or text
    without any token scores 0 with everything.

    Args:
        image_tokens: [b, p, d] L2-normalised, taken as they are.
        text_tokens: [b, l, d] L2-normalised, taken as they are.
        text_mask: [b, l] bool, True on real tokens.
        logit_scale: [] inverse temperature.
        image_mask: [b, p] bool, True on real tokens; all are real when left out.
    """
    if image_mask is None:
        image_mask = jnp.ones(image_tokens.shape[:2], bool)
    image_mask, text_mask = image_mask.astype(bool), text_mask.astype(bool)
    similarity = _product("ipd,jld->ijpl", image_tokens, text_tokens)
    per_image = _mean_of_max(similarity, image_mask[:, None, :], text_mask[None, :, None, :])
    per_text = _mean_of_max(
        similarity.swapaxes(2, 3), text_mask[None, :, :], image_mask[:, None, None, :]
    )
    return Logits(per_image=logit_scale * per_image, per_text=logit_scale * per_text.T)


@jax.checkpoint  # the backward pass keeps the product alone, not one masked copy per direction
def _mean_of_max(similarity: Array, row_mask: Array, column_mask: Array) -> Array:
    """Mean over the real rows of the maximum over the real columns; 0 where there are none."""
    best = jnp.max(similarity, axis=-1, where=column_mask, initial=-jnp.inf)
    counted = row_mask & jnp.any(column_mask, axis=-1)
    total = jnp.sum(best, axis=-1, where=counted)
    return total / jnp.maximum(jnp.sum(row_mask, axis=-1), 1)
