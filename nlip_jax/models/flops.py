"""Analytic floating-point operations of the towers' matmuls, forward, per example.

A multiply-add counts as two. Compilers' own counts see the body of a scan once, so they are no help
here.
"""

from nlip_jax.models.dual_encoder import DualEncoder
from nlip_jax.models.text_transformer import TextTransformer
from nlip_jax.models.vit import VisionTransformer


def encoder_flops(*, length: int, width: int, depth: int, mlp_dim: int | None = None) -> int:
    """A stack of layers: projections, scores, weighted values, MLP.

    Causal attention counts in full, because it is computed in full.
    """
    projections = 4 * 2 * length * width * width
    attention = 2 * 2 * length * length * width
    mlp = 2 * 2 * length * width * (mlp_dim or 4 * width)
    return depth * (projections + attention + mlp)


def image_tower_flops(tower: VisionTransformer) -> int:
    """One image: patch embedding, layers and, for pool="map", its head."""
    width, tokens = tower.width, tower.num_tokens
    embedding = 2 * tower.grid_size**2 * (3 * tower.patch_size**2) * width
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
    image_rows = 1 + model.image.num_tokens * model.token_features
    text_rows = 1 + model.text.context_length * model.token_features
    return {
        "image": image_tower_flops(model.image)
        + 2 * image_rows * model.image.width * model.embed_dim,
        "text": text_tower_flops(model.text) + 2 * text_rows * model.text.width * model.embed_dim,
    }
