"""FILIP's token reduction: only tokens that find a good match take part in the loss.

Of every image (text) the tokens with the highest token-wise maximum over the texts (images) of its
group are kept (arXiv 2111.07783, section 3.2: 25 %, and a group is what one worker holds). A group
is a number of neighbours in the batch here, so that the result does not depend on the mesh; groups
that lie on one device need no communication, and features are reduced before they are gathered.
"""

import math

import jax
import jax.numpy as jnp
from jax import Array

from nlip_jax.losses.sides import Side


def keep_best_tokens(
    images: Side, texts: Side, *, share: float, group: int
) -> tuple[Side, Side]:
    """The sides with the best tokens of each image and text.

    Args:
        images: features [b, p, d], mask [b, p] or None.
        texts: features [b, l, d], mask [b, l] or None.
        share: of the tokens that are kept, padding included; the choice has no gradient.
        group: pairs that compete; divides b.
    """
    if share >= 1.0:
        return images, texts
    batch = len(images.features)
    groups = batch // min(group, batch)
    grouped = [
        jax.tree.map(
            lambda a: jax.lax.stop_gradient(a).reshape(groups, batch // groups, *a.shape[1:]),
            (side.features, _mask(side)),
        )
        for side in (images, texts)
    ]
    of_images, of_texts = jax.vmap(_best_matches)(*grouped)
    return (
        _keep(images, of_images.reshape(batch, -1), share),
        _keep(texts, of_texts.reshape(batch, -1), share),
    )


def _mask(side: Side) -> Array:
    """The real tokens: those of a pair that only fills up the batch are none."""
    mask = jnp.ones(side.features.shape[:2], bool) if side.mask is None else side.mask
    return mask if side.valid is None else mask & side.valid[:, None]


def _best_matches(images: tuple[Array, Array], texts: tuple[Array, Array]) -> tuple[Array, Array]:
    """Highest similarity of every token with any real token of the other side, [g, p] and [g, l].

    One text at a time: a group's similarities of all tokens at once would be large.
    """
    (image_tokens, image_mask), rest = images, texts

    def add(best: Array, text: tuple[Array, Array]) -> tuple[Array, Array]:
        tokens, mask = text
        similarity = jnp.einsum("gpd,ld->gpl", image_tokens, tokens)
        of_image = jnp.where(mask[None, None], similarity, -jnp.inf).max(2)
        of_text = jnp.where(image_mask[:, :, None], similarity, -jnp.inf).max((0, 1))
        return jnp.maximum(best, of_image), of_text

    start = jnp.full(image_mask.shape, -jnp.inf, image_tokens.dtype)
    return jax.lax.scan(add, start, rest)


def _keep(side: Side, score: Array, share: float) -> Side:
    """The tokens with the highest scores, in their order; padding comes last in any choice."""
    mask = _mask(side)
    count = max(1, math.ceil(share * mask.shape[1]))
    score = jnp.where(mask, score, -jnp.inf)
    # A token without any match beats padding all the same.
    _, place = jax.lax.top_k(jnp.where(mask, jnp.maximum(score, -2.0), -jnp.inf), count)
    place = jnp.sort(place, axis=1)
    return side.replace(
        features=jnp.take_along_axis(side.features, place[..., None], axis=1),
        mask=jnp.take_along_axis(mask, place, axis=1),
    )
