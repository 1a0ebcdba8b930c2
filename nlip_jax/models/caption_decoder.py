"""C_d of NLIP (Huang et al., AAAI 2023, Fig. 2): a decoder of texts over a memory."""

from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp

from nlip_jax.errors import UsageError
from nlip_jax.models.block import DTYPES, unconstrained
from nlip_jax.models.layers import Encoder, check_encoder, check_rows
from nlip_jax.types import Array, PyTree


class CaptionDecoder(nn.Module):
    """Words to features: a word sees itself, earlier ones, and a memory.

    With norm="post", activation="gelu", embedding_norm=True and epsilon=1e-5 it is the decoder of
    BART (Lewis et al., arXiv:1910.13461).

    Attributes:
      context_length: the longest row.
      width: of the residual stream and the memory.
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

    context_length: int
    width: int
    depth: int
    heads: int
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
        if self.context_length < 1:
            raise UsageError(
                f"CaptionDecoder: context_length={self.context_length} must be 1 or more"
            )
        super().__post_init__()

    def setup(self):
        """Makes the parts that whole rows and single steps share."""
        shape = (self.context_length, self.width)
        init = nn.initializers.normal(0.01)
        self.position = self.param("position", init, shape, jnp.float32)
        if self.embedding_norm:
            self.first_norm = nn.LayerNorm(self.epsilon, dtype=jnp.float32)
        self.decoder = Encoder(
            depth=self.depth,
            heads=self.heads,
            mlp_dim=self.mlp_dim,
            dtype=self.dtype,
            remat=self.remat,
            scan=self.scan,
            dropout=self.dropout,
            constrain=self.constrain,
            cross=True,
            norms=self.norm,
            activation=self.activation,
            epsilon=self.epsilon,
        )

    def __call__(
        self,
        words: Array,
        mask: Array,
        memory: Array,
        memory_mask: Array,
        keys: Array | None = None,
    ) -> Array:
        """Decodes whole rows.

        Args:
          words: `[b, l, width]`, the vectors of words; l at most context_length.
          mask: `[b, l]` bool, False on padding.
          memory: `[b, m, width]`.
          memory_mask: `[b, m]` bool, False on padding.
          keys: `[b]`, see `layers.Encoder`.

        Returns:
          `[b, l, width]` float32, after a layer norm; of no meaning on padding.
        """
        length = words.shape[1]
        check_rows("CaptionDecoder", words, "context_length", self.context_length)
        visible = mask[:, None, :] & jnp.tril(jnp.ones((length, length), bool))
        x = self._place(words, self.position[:length])
        return self.decoder(x, visible, keys, memory=memory, memory_mask=memory_mask)

    def start(
        self, memory: Array, memory_mask: Array, *, length: int | None = None
    ) -> PyTree:
        """What `step` needs at the start of rows over a memory.

        Args:
          memory: `[b, m, width]`.
          memory_mask: `[b, m]` bool, False on padding.
          length: tokens that will be read, at most context_length; None: as many. Every step looks
            at the room for all of them.

        Returns:
          memory: keys and values of every layer, and their mask; does not change any more.
          past: room for keys and values of every layer, of so many tokens.
          All of them `[b, ...]`.
        """
        length = self.context_length if length is None else length
        if not 1 <= length <= self.context_length:
            raise UsageError(
                f"CaptionDecoder: length={length} of rows that are decoded must lie in 1 to "
                f"context_length={self.context_length}"
            )
        dtype, size = DTYPES[self.dtype], self.width // self.heads
        memory = self.constrain(memory.astype(dtype))
        empty = self.constrain(jnp.zeros((len(memory), length, self.width), dtype))
        keys = empty.reshape(-1, self.heads, size, length)
        values = empty.reshape(-1, self.heads, length, size)
        layers = self.decoder.bound_blocks(self.width)
        return {
            "memory": {
                "mask": memory_mask,
                "layers": tuple(layer.project_memory(memory) for layer in layers),
            },
            "past": tuple((keys, values) for _ in layers),
        }

    def step(self, cache: PyTree, words: Array, position: Array) -> tuple[Array, PyTree]:
        """Decodes one word of every row.

        Args:
          cache: of `start`, or of the step before. The past may have k rows for each of the
            memory, side by side, that share it.
          words: `[b, width]`, the vectors of words.
          position: () int32, the same of all rows, below the length at the start.

        Returns:
          `[b, width]` float32, after a layer norm, and the next cache.
        """
        here = jax.lax.dynamic_index_in_dim(self.position, position, keepdims=False)
        x = self._place(words, here)[:, None]
        x = self.constrain(x.astype(DTYPES[self.dtype]))
        memory, past = cache["memory"], []
        mask = memory["mask"][:, None, None]
        for layer, old, seen in zip(
            self.decoder.bound_blocks(self.width), cache["past"], memory["layers"], strict=True
        ):
            x, new = layer.step(x, old, seen, mask, position)
            past.append(new)
        # Left to itself, XLA (jax 0.10.2, CPU) exchanged the rows of devices along fsdp here.
        hidden = self.constrain(self.decoder.finish(x))[:, 0]
        return hidden, {"memory": memory, "past": tuple(past)}

    def _place(self, words: Array, position: Array) -> Array:
        x = words + position
        return self.first_norm(x) if self.embedding_norm else x
