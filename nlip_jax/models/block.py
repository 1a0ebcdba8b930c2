"""One layer of a transformer, and its parts.

Parameters are float32, always; matmuls and the residual stream are in the compute dtype; layer
norms and attention's softmax are in float32.
"""

import functools
from collections.abc import Callable

import flax.linen as nn
import flax.struct
import jax
import jax.numpy as jnp

from nlip_jax.models.dropout import dropout, fold
from nlip_jax.types import Array

DTYPES = {"float32": jnp.float32, "bfloat16": jnp.bfloat16}

# "gelu_tanh" is what JAX calls gelu by default; "gelu" is exact, as BART's.
ACTIVATIONS = {"gelu_tanh": nn.gelu, "gelu": functools.partial(nn.gelu, approximate=False)}

# Where a layer norm stands: before each part, and once at the end; or behind each part's sum.
NORMS = ("pre", "post")


def unconstrained(x: Array) -> Array:
    """Leaves it to XLA how activations lie on a mesh."""
    return x


class Attention(nn.Module):
    """Multi-head attention.

    Initialised as in CLIP: inputs with width ** -0.5, the output smaller by (2 depth) ** -0.5, so
    that the residual stream keeps its variance.
    """

    width: int
    heads: int
    depth: int = 1
    dtype: str = "float32"

    def setup(self):
        """Makes the four projections."""
        std = self.width**-0.5

        def split() -> nn.DenseGeneral:
            return nn.DenseGeneral(
                (self.heads, self.width // self.heads),
                dtype=DTYPES[self.dtype],
                kernel_init=nn.initializers.normal(std),
            )

        self.query, self.key, self.value = split(), split(), split()
        self.out = nn.DenseGeneral(
            self.width,
            axis=(-2, -1),
            dtype=DTYPES[self.dtype],
            kernel_init=nn.initializers.normal(std * (2 * self.depth) ** -0.5),
        )

    def __call__(self, query: Array, key_value: Array, mask: Array | None = None) -> Array:
        """Lets every query look at the keys.

        Args:
          query: `[b, l, width]`.
          key_value: `[b, m, width]`.
          mask: bool, broadcasts to `[b, heads, l, m]`, True where a query may look. A query that
            may look nowhere gets the mean of all values.

        Returns:
          `[b, l, width]` in the compute dtype.
        """
        return self.out(
            jax.nn.dot_product_attention(
                self.query(query), self.key(key_value), self.value(key_value), mask=mask
            )
        )

    def project(self, key_value: Array) -> tuple[Array, Array]:
        """Keys and values of `[b, m, width]` for `look`, laid out as its products want them.

        Returns:
          Keys `[b, heads, width / heads, m]` and values `[b, heads, m, width / heads]`, so that no
          step of a decoder lays out all of them anew.
        """
        keys, values = self.key(key_value), self.value(key_value)
        return jnp.moveaxis(keys, 1, 3), jnp.moveaxis(values, 1, 2)

    def look(self, query: Array, keys: Array, values: Array, mask: Array) -> Array:
        """As `__call__`, for what `project` gave."""
        query = jnp.moveaxis(self.query(query), 1, 2)
        scores = jnp.matmul(query, keys, preferred_element_type=jnp.float32)
        scores = scores * (self.width // self.heads) ** -0.5
        scores = jnp.where(mask, scores, -0.7 * jnp.finfo(jnp.float32).max)
        weights = jax.nn.softmax(scores, axis=-1).astype(values.dtype)
        return self.out(jnp.moveaxis(jnp.matmul(weights, values), 1, 2))


class Mlp(nn.Module):
    """Dense, GELU, dense; initialised as in CLIP."""

    mlp_dim: int
    depth: int = 1
    dtype: str = "float32"
    activation: str = "gelu_tanh"

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """`[b, l, width]` to `[b, l, width]` in the compute dtype."""
        width, dtype = x.shape[-1], DTYPES[self.dtype]
        wide_std = (2 * width) ** -0.5
        narrow_std = (2 * self.depth * width) ** -0.5
        x = nn.Dense(
            self.mlp_dim, dtype=dtype, kernel_init=nn.initializers.normal(wide_std), name="wide"
        )(x)
        return nn.Dense(
            width, dtype=dtype, kernel_init=nn.initializers.normal(narrow_std), name="narrow"
        )(ACTIVATIONS[self.activation](x))


@flax.struct.dataclass
class Around:
    """What all layers of a stack look at, and draw from.

    Attributes:
      mask: bool, broadcasts to `[b, heads, l, l]`, True where a query may look at a key.
      memory: `[b, m, width]`, of a decoder.
      memory_mask: bool, broadcasts to `[b, heads, l, m]`.
      keys: `[b]` random keys of the dropout.
    """

    mask: Array | None = None
    memory: Array | None = None
    memory_mask: Array | None = None
    keys: Array | None = None


class Block(nn.Module):
    """One layer: attention, in a decoder attention to a memory, MLP; each adds to the stream.

    The fields are those of `Encoder`.
    """

    width: int
    heads: int
    mlp_dim: int
    depth: int = 1
    dtype: str = "float32"
    dropout: float = 0.0
    constrain: Callable[[Array], Array] = unconstrained
    cross: bool = False
    norms: str = "pre"
    activation: str = "gelu_tanh"
    epsilon: float = 1e-6

    def setup(self):
        """Makes the two or three parts, each with its norm."""
        attention = (self.width, self.heads, self.depth, self.dtype)
        self.attention_norm = nn.LayerNorm(self.epsilon, dtype=jnp.float32)
        self.attention = Attention(*attention)
        if self.cross:
            self.cross_attention_norm = nn.LayerNorm(self.epsilon, dtype=jnp.float32)
            self.cross_attention = Attention(*attention)
        self.mlp_norm = nn.LayerNorm(self.epsilon, dtype=jnp.float32)
        self.mlp = Mlp(self.mlp_dim, self.depth, self.dtype, self.activation)

    def __call__(self, x: Array, around: Around, layer: Array) -> tuple[Array, None]:
        """`[b, l, width]` to `[b, l, width]`; in pairs, as `nn.scan` wants it."""
        keys = fold(around.keys, layer)
        y = self._before(x, self.attention_norm)
        y = self.attention(y, y, around.mask)
        x = self._after(x, y, self.attention_norm, fold(keys, 0))
        if self.cross:
            y = self._before(x, self.cross_attention_norm)
            y = self.cross_attention(y, around.memory, around.memory_mask)
            x = self._after(x, y, self.cross_attention_norm, fold(keys, 2))
        y = self.mlp(self._before(x, self.mlp_norm))
        return self.constrain(self._after(x, y, self.mlp_norm, fold(keys, 1))), None

    def project_memory(self, memory: Array) -> tuple[Array, Array]:
        """Keys and values of a memory `[b, m, width]`, for `step`."""
        return self.cross_attention.project(memory)

    def step(
        self,
        x: Array,
        past: tuple[Array, Array],
        memory: tuple[Array, Array],
        memory_mask: Array,
        position: Array,
    ) -> tuple[Array, tuple[Array, Array]]:
        """One token more, outside training.

        Args:
          x: `[b, 1, width]`.
          past: keys and values of the tokens so far, as of `Attention.project`, m = l.
          memory: what `project_memory` gave, of b rows or of b / k: then k rows in turn share one.
          memory_mask: bool `[b / k, 1, 1, m]`.
          position: () int32, of the token.

        Returns:
          `[b, 1, width]` and the past with this token in it.
        """

        y = self._before(x, self.attention_norm)
        keys, values = self.attention.project(y)
        past = (
            jax.lax.dynamic_update_slice_in_dim(past[0], keys, position, axis=3),
            jax.lax.dynamic_update_slice_in_dim(past[1], values, position, axis=2),
        )
        y = self.attention.look(y, *past, jnp.arange(past[1].shape[2]) <= position)
        x = self._after(x, y, self.attention_norm)
        y = self._before(x, self.cross_attention_norm)
        shared = y.reshape(len(memory_mask), -1, self.width)
        y = self.cross_attention.look(shared, *memory, memory_mask).reshape(y.shape)
        x = self._after(x, y, self.cross_attention_norm)
        y = self.mlp(self._before(x, self.mlp_norm))
        return self.constrain(self._after(x, y, self.mlp_norm)), past

    def _before(self, x: Array, norm: nn.LayerNorm) -> Array:
        return norm(x) if self.norms == "pre" else x

    def _after(
        self, x: Array, y: Array, norm: nn.LayerNorm, keys: Array | None = None
    ) -> Array:
        x = x + dropout(y, keys, self.dropout)
        return x if self.norms == "pre" else norm(x).astype(x.dtype)
