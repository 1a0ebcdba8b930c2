"""A four-part model of the smallest sizes, and rows for it."""

import jax
import jax.numpy as jnp
import numpy as np

from nlip_jax.models.caption_decoder import CaptionDecoder
from nlip_jax.models.dropout import example_keys
from nlip_jax.models.four_part import FourPart
from nlip_jax.models.mae_decoder import MaeDecoder
from nlip_jax.models.text_encoder import TextEncoder
from nlip_jax.models.vit import VisionTransformer

SIZE, VOCAB, LENGTH, CONCEPTS = 12, 20, 6, 4
IMAGE = jnp.asarray(np.random.default_rng(1).uniform(-1, 1, (3, SIZE, SIZE, 3)), jnp.float32)
TOKENS = jnp.array([[2, 5, 6, 7, 3, 0], [2, 8, 9, 10, 11, 3], [2, 3, 0, 0, 0, 0]], jnp.int32)
NOISED = jnp.array([[2, 5, 4, 3, 0, 0], [0, 0, 0, 0, 0, 0], [2, 3, 0, 0, 0, 0]], jnp.int32)
HINTS = jnp.array([[12, 0, 13, 14], [0, 0, 0, 0], [15, 16, 0, 0]], jnp.int32)
KEYS = example_keys(jax.random.key(5), jnp.arange(3))
INPUTS = {"image": IMAGE, "tokens": TOKENS, "noised": NOISED, "hints": HINTS, "keys": KEYS}


def four_part(
    *, shared=None, words=None, image_decoder=True, concept_length=CONCEPTS, **fields
) -> FourPart:
    """The model; `shared` are fields of all parts, `words` of the text encoder and the decoder."""
    shared = {"depth": 1, "heads": 2, "mlp_dim": 16} | (shared or {})
    text = {"context_length": LENGTH, "width": 12} | shared | (words or {})
    image = {"patch_size": 4, "image_size": SIZE} | shared
    fields = {"mask_ratio": 0.5, "token_features": True, "embed_dim": 6} | fields
    return FourPart(
        image=VisionTransformer(**image, width=8),
        text=TextEncoder(vocab_size=VOCAB, concept_length=concept_length, **text),
        decoder=CaptionDecoder(**text),
        image_decoder=MaeDecoder(**image, width=4) if image_decoder else None,
        **fields,
    )


def outputs_of(model, params, inputs):
    """All that a training step asks of a model."""

    def call(*args, method):
        return model.apply(params, *args, method=method)

    seen = call(inputs["image"], inputs["keys"], method="encode_masked_image")
    memory, noised, hints = seen["image_memory"], inputs["noised"], inputs["hints"]
    return {
        **seen,
        **call(inputs["tokens"], None, hints, method="encode_text"),
        "hidden": call(memory, noised, hints, inputs["tokens"], method="caption_hidden"),
        "patches": call(memory, seen["visible"], method="reconstruct"),
    }
