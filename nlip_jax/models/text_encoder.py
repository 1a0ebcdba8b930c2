"""T_e of NLIP (Huang et al., AAAI 2023, Fig. 2): text and retrieved concepts, read together."""

from collections.abc import Callable

import flax.linen as nn
import jax.numpy as jnp

from nlip_jax.errors import UsageError
from nlip_jax.models.block import unconstrained
from nlip_jax.models.layers import Encoder, check_encoder, check_rows
from nlip_jax.models.text_transformer import PAD
from nlip_jax.types import Array


class TextEncoder(nn.Module):
    """Rows of token ids and rows of concepts to features; every token sees every other.

    With norm="post", activation="gelu", embedding_norm=True and epsilon=1e-5 it is the encoder of
    BART (Lewis et al., arXiv:1910.13461). It also holds the table of words that the decoder reads
    and writes by.

    Attributes:
      vocab_size: number of ids; 0 is padding, and padding never influences the result.
      context_length: the longest row of text.
      concept_length: the longest row of concepts; 0 for none.
      width: of the residual stream.
      depth: number of layers.
      heads: attention heads; divides the width.
      mlp_dim: width inside the MLPs; None means 4 * width.
      norm: `norms` of `layers.Encoder`.
      activation: see `layers.Encoder`.
      embedding_norm: a layer norm before the first layer.
      epsilon: see `layers.Encoder`.
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
    concept_length: int = 0
    mlp_dim: int | None = None
    norm: str = "pre"
    activation: str = "gelu_tanh"
    embedding_norm: bool = False
    epsilon: float = 1e-6
    dtype: str = "float32"
    remat: str = "none"
    scan: bool = False
    dropout: float = 0.0
    constrain: Callable[[Array], Array] = unconstrained

    def __post_init__(self):
        check_encoder(self)
        if min(self.vocab_size, self.context_length) < 1 or self.concept_length < 0:
            raise UsageError(
                f"TextEncoder: vocab_size={self.vocab_size} and "
                f"context_length={self.context_length} must be 1 or more, "
                f"concept_length={self.concept_length} 0 or more"
            )
        super().__post_init__()

    def setup(self):
        """Makes the parts that `embed`, `table` and the encoder share."""
        init = nn.initializers.normal  # CLIP's: 0.02 for words, 0.01 for positions
        self.embedding = nn.Embed(self.vocab_size, self.width, embedding_init=init(0.02))
        shape = (self.context_length, self.width)
        self.position = self.param("position", init(0.01), shape, jnp.float32)
        self.concepts = ConceptPlaces(self.concept_length, self.width)
        if self.embedding_norm:
            self.first_norm = nn.LayerNorm(self.epsilon, dtype=jnp.float32)
        self.encoder = Encoder(
            depth=self.depth,
            heads=self.heads,
            mlp_dim=self.mlp_dim,
            dtype=self.dtype,
            remat=self.remat,
            scan=self.scan,
            dropout=self.dropout,
            constrain=self.constrain,
            norms=self.norm,
            activation=self.activation,
            epsilon=self.epsilon,
        )

    def __call__(
        self, tokens: Array | None, concepts: Array | None = None, keys: Array | None = None
    ) -> dict[str, Array]:
        """Encodes texts, concepts, or both behind one another.

        Args:
          tokens: `[b, l]` int32; l at most context_length. None: no text.
          concepts: `[b, c]` int32; c at most concept_length; padding may stand anywhere. None: no
            concepts.
          keys: `[b]`, see `layers.Encoder`.

        Returns:
          tokens: `[b, l + c, width]` float32; of no meaning on padding.
          mask: `[b, l + c]` bool, False on padding.
        """
        parts, masks = [], []
        if tokens is not None:
            check_rows("TextEncoder", tokens, "context_length", self.context_length)
            parts.append(self.embed(tokens) + self.position[: tokens.shape[1]])
            masks.append(tokens != PAD)
        if concepts is not None:
            check_rows("TextEncoder", concepts, "concept_length", self.concept_length)
            parts.append(self.concepts(self.embed(concepts)))
            masks.append(concepts != PAD)
        x, mask = jnp.concatenate(parts, axis=1), jnp.concatenate(masks, axis=1)
        if self.embedding_norm:
            x = self.first_norm(x)
        return {"tokens": self.encoder(x, mask[:, None, None], keys), "mask": mask}

    def embed(self, tokens: Array) -> Array:
        """The vectors of words, without positions: `[...]` int32 to `[..., width]` float32."""
        return self.embedding(tokens)

    def table(self) -> Array:
        """The vectors of all words: `[vocab_size, width]` float32."""
        return self.embedding.embedding


class ConceptPlaces(nn.Module):
    """What tells concepts from text, and each place in a row of concepts from the others."""

    length: int
    width: int

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """Adds it to words: `[b, c, width]` to the same."""
        init, shape = nn.initializers.normal(0.01), (self.length, self.width)
        position = self.param("position", init, shape, jnp.float32)
        kind = self.param("type", nn.initializers.zeros, (self.width,), jnp.float32)
        return x + position[: x.shape[1]] + kind
