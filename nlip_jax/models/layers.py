"""The transformer both towers are made of.

Parameters are float32, always; matmuls and the residual stream are in the compute dtype; layer
norms and attention's softmax are in float32.
"""

from collections.abc import Callable, Container

import flax.linen as nn
import jax
import jax.numpy as jnp

from nlip_jax.errors import UsageError
from nlip_jax.models.dropout import dropout, fold
from nlip_jax.types import Array

DTYPES = {"float32": jnp.float32, "bfloat16": jnp.bfloat16}

# What a layer keeps for its backward pass: all of it, its input only, or its input and the results
# of its weight matmuls (attention's scores are computed again).
REMAT = {
    "none": None,
    "full": jax.checkpoint_policies.nothing_saveable,
    "dots": jax.checkpoint_policies.dots_with_no_batch_dims_saveable,
}


def unconstrained(x: Array) -> Array:
    """Leaves it to XLA how activations lie on a mesh."""
    return x


class Attention(nn.Module):
    """Multi-head attention.

    Initialised as in CLIP: inputs with width ** -0.5, the output smaller by (2 depth) ** -0.5, so
    that the residual stream keeps its variance.
    """

    heads: int
    depth: int = 1
    dtype: str = "float32"

    @nn.compact
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
        width = query.shape[-1]
        std = width**-0.5

        def split(name: str, x: Array) -> Array:
            return nn.DenseGeneral(
                (self.heads, width // self.heads),
                dtype=DTYPES[self.dtype],
                kernel_init=nn.initializers.normal(std),
                name=name,
            )(x)

        mixed = jax.nn.dot_product_attention(
            split("query", query), split("key", key_value), split("value", key_value), mask=mask
        )
        return nn.DenseGeneral(
            width,
            axis=(-2, -1),
            dtype=DTYPES[self.dtype],
            kernel_init=nn.initializers.normal(std * (2 * self.depth) ** -0.5),
            name="out",
        )(mixed)


class Mlp(nn.Module):
    """Dense, GELU, dense; initialised as in CLIP."""

    mlp_dim: int
    depth: int = 1
    dtype: str = "float32"

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
        )(nn.gelu(x))


class Block(nn.Module):
    """One pre-norm layer: attention, then MLP, each added to the residual stream."""

    heads: int
    mlp_dim: int
    depth: int = 1
    dtype: str = "float32"
    dropout: float = 0.0
    constrain: Callable[[Array], Array] = unconstrained

    @nn.compact
    def __call__(
        self, x: Array, mask: Array | None, keys: Array | None, layer: Array
    ) -> tuple[Array, None]:
        """`[b, l, width]` to `[b, l, width]`; in pairs, as `nn.scan` wants it."""
        keys = fold(keys, layer)
        y = nn.LayerNorm(dtype=jnp.float32, name="attention_norm")(x)
        y = Attention(self.heads, self.depth, self.dtype, name="attention")(y, y, mask)
        x = x + dropout(y, fold(keys, 0), self.dropout)
        y = nn.LayerNorm(dtype=jnp.float32, name="mlp_norm")(x)
        y = Mlp(self.mlp_dim, self.depth, self.dtype, name="mlp")(y)
        return self.constrain(x + dropout(y, fold(keys, 1), self.dropout)), None


class Encoder(nn.Module):
    """`depth` layers and a final layer norm.

    Attributes:
      depth: number of layers.
      heads: attention heads; divides the width of the input.
      mlp_dim: width inside the MLPs; None means 4 * width.
      dtype: compute dtype, a key of `DTYPES`.
      remat: what the backward pass computes again, a key of `REMAT`.
      scan: one compiled layer, run `depth` times over parameters with a leading axis of layers
        (`blocks`), instead of `depth` layers (`block_0`, ...). Compiles faster, same function.
      dropout: share of what each layer's attention and MLP add that is left out, given keys.
      constrain: says how the residual stream lies on a mesh, as `sharding.KeepByRow`; applied
        before the first layer, after every layer and to the result.
    """

    depth: int
    heads: int
    mlp_dim: int | None = None
    dtype: str = "float32"
    remat: str = "none"
    scan: bool = False
    dropout: float = 0.0
    constrain: Callable[[Array], Array] = unconstrained

    @nn.compact
    def __call__(
        self, x: Array, mask: Array | None = None, keys: Array | None = None
    ) -> Array:
        """Runs the layers.

        Args:
          x: `[b, l, width]`.
          mask: bool `[b, l, l]` or `[b, 1, l, l]`, or 1 for b and the first l; True where the query
            of axis -2 may look at the key of axis -1. Rows without any True stay finite.
          keys: `[b]`, one random key an example, of the dropout; None outside training.

        Returns:
          `[b, l, width]` float32, after the final layer norm.
        """
        if mask is not None and mask.ndim == 3:
            mask = mask[:, None]
        x = self.constrain(x.astype(DTYPES[self.dtype]))
        keys = keys if self.dropout else None
        layer = {
            "heads": self.heads,
            "mlp_dim": self.mlp_dim or 4 * x.shape[-1],
            "depth": self.depth,
            "dtype": self.dtype,
            "dropout": self.dropout,
            "constrain": self.constrain,
        }
        block = Block
        if self.remat != "none":
            # A scan keeps XLA from merging the two forward passes by itself.
            block = nn.remat(Block, prevent_cse=not self.scan, policy=REMAT[self.remat])
        if self.scan:
            stack = nn.scan(
                block,
                variable_axes={"params": 0},
                split_rngs={"params": True},
                in_axes=(nn.broadcast, nn.broadcast, 0),
                length=self.depth,
            )
            x, _ = stack(**layer, name="blocks")(x, mask, keys, jnp.arange(self.depth))
        else:
            for i in range(self.depth):
                x, _ = block(**layer, name=f"block_{i}")(x, mask, keys, jnp.int32(i))
        return self.constrain(nn.LayerNorm(dtype=jnp.float32, name="norm")(x))


def check_choice(owner: str, field: str, value: str, choices: Container[str]) -> None:
    """Refuses a name that is not in a table, and lists those that are.

    Raises:
      UsageError: always says which field of which module, the value and the choices.
    """
    if value not in choices:
        raise UsageError(f"{owner}: {field}={value!r} is not one of {', '.join(choices)}")


def check_transformer(tower: nn.Module) -> None:
    """Refuses fields of a tower that its `Encoder` could not work with.

    Raises:
      UsageError: naming the tower, the value and the rule.
    """
    owner = type(tower).__name__
    check_choice(owner, "dtype", tower.dtype, DTYPES)
    check_choice(owner, "remat", tower.remat, REMAT)
    if not 0 <= tower.dropout < 1:
        raise UsageError(f"{owner}: dropout={tower.dropout} must lie in [0, 1)")
    if min(tower.width, tower.depth, tower.heads) < 1:
        raise UsageError(
            f"{owner}: width={tower.width}, depth={tower.depth}, heads={tower.heads} "
            "must be 1 or more"
        )
    if tower.width % tower.heads:
        raise UsageError(
            f"{owner}: width={tower.width} is not divisible by heads={tower.heads}; "
            "every head takes an equal part"
        )
