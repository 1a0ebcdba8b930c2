"""From the features of two towers to logits: the first choice of every contrastive objective."""

from nlip_jax.losses.similarity import Logits, dot_similarity, token_max_similarity
from nlip_jax.methods.base import Features
from nlip_jax.types import Array


def dot(image: Features, text: Features, logit_scale: Array) -> Logits:
    """Cosine of the pooled embeddings (CLIP)."""
    return dot_similarity(image["image_embed"], text["text_embed"], logit_scale)


def token_max(image: Features, text: Features, logit_scale: Array) -> Logits:
    """Mean over tokens of the best match among the other side's tokens (FILIP)."""
    return token_max_similarity(
        image["image_tokens"], text["text_tokens"], text["text_mask"], logit_scale
    )


SIMILARITIES = {"dot": dot, "token_max": token_max}
