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
    """Score pairs by late interaction (FILIP, arXiv 2111.07783).

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
    # No pair of tokens is laid out twice: [b_images, p, b_texts, l] is how the product comes.
    similarity = _product("ipd,jld->ipjl", image_tokens, text_tokens)
    image_mask, text_mask = image_mask[:, :, None, None], text_mask[None, None]
    per_image = _mean(_best(similarity, text_mask, 3), image_mask, text_mask, axes=(1, 3))
    per_text = _mean(_best(similarity, image_mask, 1), text_mask, image_mask, axes=(3, 1))
    return Logits(per_image=logit_scale * per_image, per_text=logit_scale * per_text.T)


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
