"""Transformer over token ids as a text tower: causal as CLIP's, or looking both ways."""

from collections.abc import Callable

import flax.linen as nn
import jax.numpy as jnp

from nlip_jax.errors import UsageError
from nlip_jax.models.block import unconstrained
from nlip_jax.models.layers import Encoder, check_choice, check_rows, check_transformer
from nlip_jax.types import Array

PAD = 0


def _last(mask: Array) -> Array:
    """Weight 1 on the last token that is not padding; on the first where there is none."""
    position = jnp.arange(mask.shape[1])
    last = jnp.max(jnp.where(mask, position, 0), axis=1, keepdims=True)
    return (position == last).astype(jnp.float32)


def _first(mask: Array) -> Array:
    return jnp.zeros(mask.shape, jnp.float32).at[:, 0].set(1.0)


def _all(mask: Array) -> Array:
    """Equal weights on the tokens that are not padding; zeros where there is none."""
    count = jnp.maximum(jnp.sum(mask, axis=1, keepdims=True), 1)
    return mask.astype(jnp.float32) / count


# Name of a pool -> function of the mask [b, l] to the weights [b, l] of a sum over tokens.
POOLS = {"eos": _last, "cls": _first, "mean": _all}


class TextTransformer(nn.Module):
    """Rows of token ids, `[bos] text [eos] 0 0 0`, to features.

    Attributes:
      vocab_size: number of ids; 0 is padding, and padding never influences the result.
      context_length: the longest row.
      width: of the residual stream.
      depth: number of layers.
      heads: attention heads; divides the width.
      mlp_dim: width inside the MLPs; None means 4 * width.
      causal: a token sees itself and earlier ones only.
      pool: "eos" takes the last token's output, "cls" the first one's (not with causal=True, where
        it saw nothing), "mean" the mean over tokens.
      dtype: compute dtype, "float32" or "bfloat16"; parameters and outputs are float32.
      remat: see `layers.Encoder`.
      scan: see `layers.Encoder`.
      dropout: see `layers.Encoder`.
      constrain: see `layers.Encoder`.

    Raises:
      UsageError: on construction, for fields that do not fit each other.
    """

    vocab_size: int
    context_length: int
    width: int
    depth: int
    heads: int
    mlp_dim: int | None = None
    causal: bool = True
    pool: str = "eos"
    dtype: str = "float32"
    remat: str = "none"
    scan: bool = False
    dropout: float = 0.0
    constrain: Callable[[Array], Array] = unconstrained

    def __post_init__(self):
        check_transformer(self)
        check_choice("TextTransformer", "pool", self.pool, POOLS)
        if min(self.vocab_size, self.context_length) < 1:
            raise UsageError(
                f"TextTransformer: vocab_size={self.vocab_size} and "
                f"context_length={self.context_length} must be 1 or more"
            )
        if self.pool == "cls" and self.causal:
            raise UsageError(
                "TextTransformer: pool='cls' reads the first token, which sees no other with "
                "causal=True; set causal=False or pool='eos'"
            )
        super().__post_init__()

    @nn.compact
    def __call__(self, tokens: Array, keys: Array | None = None) -> dict[str, Array]:
        """Encodes captions.

        Args:
          tokens: `[b, l]` int32; l at most context_length.
          keys: `[b]`, see `layers.Encoder`.

        Returns:
          pooled: `[b, width]` float32.
          tokens: `[b, l, width]` float32, after the final layer norm; of no meaning on padding.
          mask: `[b, l]` bool, False on padding.
        """
        length = tokens.shape[1]
        check_rows("TextTransformer", tokens, "context_length", self.context_length)
        init = nn.initializers.normal  # CLIP's: 0.02 for words, 0.01 for positions
        shape = (self.context_length, self.width)
        position = self.param("position", init(0.01), shape, jnp.float32)
        words = nn.Embed(self.vocab_size, self.width, embedding_init=init(0.02), name="embedding")
        mask = tokens != PAD
        visible = mask[:, None, :]
        if self.causal:
            visible = visible & jnp.tril(jnp.ones((length, length), bool))
        encoded = Encoder(
            depth=self.depth,
            heads=self.heads,
            mlp_dim=self.mlp_dim,
            dtype=self.dtype,
            remat=self.remat,
            scan=self.scan,
            dropout=self.dropout,
            constrain=self.constrain,
            name="encoder",
        )(words(tokens) + position[:length], visible, keys)
        # A weighted sum, and not a matmul: on TPU that would round to bfloat16 by default.
        pooled = jnp.sum(POOLS[self.pool](mask)[..., None] * encoded, axis=1)
        return {"pooled": pooled, "tokens": encoded, "mask": mask}
