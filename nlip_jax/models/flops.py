"""Analytic floating-point operations of the towers' matmuls, forward, per example.

A multiply-add counts as two. Compilers' own counts see the body of a scan once, so they are no help
here.
"""

from collections.abc import Callable

from nlip_jax.models.caption_decoder import CaptionDecoder
from nlip_jax.models.dual_encoder import DualEncoder
from nlip_jax.models.four_part import FourPart
from nlip_jax.models.mae_decoder import MaeDecoder
from nlip_jax.models.masking import num_visible
from nlip_jax.models.text_encoder import TextEncoder
from nlip_jax.models.text_transformer import TextTransformer
from nlip_jax.models.vit import VisionTransformer


def forward_flops(model: object) -> dict[str, int] | None:
    """One pair in training, by part of the model.

    Returns:
      floating-point operations of a forward pass by part; None for a model that is not in
        `MODELS`, or has towers of somebody's own.
    """
    count = MODELS.get(type(model))
    return None if count is None else count(model)


def encoder_flops(*, length: int, width: int, depth: int, mlp_dim: int | None = None) -> int:
    """A stack of layers: projections, scores, weighted values, MLP.

    Causal attention counts in full, because it is computed in full.
    """
    projections = 4 * 2 * length * width * width
    attention = 2 * 2 * length * length * width
    mlp = 2 * 2 * length * width * (mlp_dim or 4 * width)
    return depth * (projections + attention + mlp)


def image_tower_flops(tower: VisionTransformer, *, visible: int | None = None) -> int:
    """One image: patch embedding, layers and, for pool="map", its head.

    Args:
      tower: the image tower.
      visible: patches that the layers see; None: all.
    """
    width, hidden = tower.width, 0 if visible is None else tower.num_patches - visible
    tokens = tower.num_tokens - hidden
    embedding = 2 * tower.num_patches * (3 * tower.patch_size**2) * width
    layers = encoder_flops(length=tokens, width=width, depth=tower.depth, mlp_dim=tower.mlp_dim)
    if tower.pool != "map":
        return embedding + layers
    head = (
        2 * (2 + 2 * tokens) * width * width  # query, out; keys, values
        + 2 * 2 * tokens * width
        + 2 * 2 * width * (tower.mlp_dim or 4 * width)
    )
    return embedding + layers + head


def text_tower_flops(tower: TextTransformer) -> int:
    """One row of context_length tokens; looking words up costs nothing."""
    return encoder_flops(
        length=tower.context_length, width=tower.width, depth=tower.depth, mlp_dim=tower.mlp_dim
    )


def decoder_flops(tower: CaptionDecoder, *, length: int, memory: int) -> int:
    """One row: layers of self-attention, attention to a memory, and MLP.

    Args:
      tower: the decoder.
      length: tokens of the row.
      memory: tokens of the memory.
    """
    width, depth = tower.width, tower.depth
    layers = encoder_flops(length=length, width=width, depth=depth, mlp_dim=tower.mlp_dim)
    projections = 2 * 2 * (length + memory) * width * width  # query, out; keys, values
    attention = 2 * 2 * length * memory * width
    return layers + depth * (projections + attention)


def dual_encoder_flops(model: object) -> dict[str, int] | None:
    """One pair, by side: the towers and their projections.

    Returns:
      image, text: floating-point operations of a forward pass; None for any but a `DualEncoder` of
        the towers above.
    """
    if not (
        isinstance(model, DualEncoder)
        and isinstance(model.image, VisionTransformer)
        and isinstance(model.text, TextTransformer)
    ):
        return None
    image_tokens, text_tokens = model.image.num_tokens, model.text.context_length
    return {
        "image": image_tower_flops(model.image)
        + _projection_flops(model, model.image, image_tokens),
        "text": text_tower_flops(model.text) + _projection_flops(model, model.text, text_tokens),
    }


def four_part_flops(model: FourPart) -> dict[str, int]:
    """One pair in training; of rows that are as long as they may be.

    Returns:
      image: the image encoder, on the visible patches, and the projection.
      text: the text encoder and the decoder for the contrastive loss, and the projection.
      captions: both for the language model, with the logits; with captions.
      reconstruction: the image decoder; where there is one.
    """
    image, text, length = model.image, model.text, model.text.context_length
    hidden = image.num_patches - num_visible(image.num_patches, mask_ratio=model.mask_ratio)
    seen = image.num_tokens - hidden
    concepts = text.concept_length if model.concepts_in_itc else 0
    counts = {
        "image": image_tower_flops(image, visible=image.num_patches - hidden)
        + _projection_flops(model, image, seen),
        "text": _text_encoder_flops(text, length=length + concepts)
        + decoder_flops(model.decoder, length=length, memory=length + concepts)
        + _projection_flops(model, text, length),
    }
    if model.captions:
        hints = length + text.concept_length
        counts["captions"] = (
            2 * seen * image.width * text.width
            + _text_encoder_flops(text, length=hints)
            + decoder_flops(model.decoder, length=length - 1, memory=seen + hints)
            + 2 * (length - 1) * text.width * text.vocab_size
        )
    if model.image_decoder is not None:
        counts["reconstruction"] = _mae_decoder_flops(model.image_decoder, image, seen=seen)
    return counts


def _projection_flops(model: DualEncoder, tower: object, tokens: int) -> int:
    """Of what is pooled and, for token-wise similarity, of every token."""
    return 2 * (1 + tokens * model.token_features) * tower.width * model.embed_dim


def _text_encoder_flops(tower: TextEncoder, *, length: int) -> int:
    return encoder_flops(
        length=length, width=tower.width, depth=tower.depth, mlp_dim=tower.mlp_dim
    )


def _mae_decoder_flops(tower: MaeDecoder, image: VisionTransformer, *, seen: int) -> int:
    layers = encoder_flops(
        length=image.num_tokens, width=tower.width, depth=tower.depth, mlp_dim=tower.mlp_dim
    )
    pixels = 3 * tower.patch_size**2
    return (
        2 * seen * image.width * tower.width + layers + 2 * image.num_patches * tower.width * pixels
    )


# Class of a model -> its count, by part.
MODELS: dict[type, Callable[..., dict[str, int] | None]] = {
    DualEncoder: dual_encoder_flops,
    FourPart: four_part_flops,
}
