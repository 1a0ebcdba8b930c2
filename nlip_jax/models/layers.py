"""The stack of layers that towers and decoders are made of."""

from collections.abc import Callable, Container
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from nlip_jax.errors import UsageError
from nlip_jax.models.block import ACTIVATIONS, DTYPES, NORMS, Around, Block, unconstrained
from nlip_jax.types import Array, PyTree

# What a layer keeps for its backward pass: all of it, its input only, or its input and the results
# of its weight matmuls (attention's scores are computed again).
REMAT = {
    "none": None,
    "full": jax.checkpoint_policies.nothing_saveable,
    "dots": jax.checkpoint_policies.dots_with_no_batch_dims_saveable,
}


class Encoder(nn.Module):
    """`depth` layers and, with norms="pre", a final layer norm.

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
      cross: every layer also attends to a memory: a decoder.
      norms: where layer norms stand, one of `NORMS`; "post" as BART's.
      activation: of the MLPs, a key of `ACTIVATIONS`.
      epsilon: of the layer norms.
    """

    depth: int
    heads: int
    mlp_dim: int | None = None
    dtype: str = "float32"
    remat: str = "none"
    scan: bool = False
    dropout: float = 0.0
    constrain: Callable[[Array], Array] = unconstrained
    cross: bool = False
    norms: str = "pre"
    activation: str = "gelu_tanh"
    epsilon: float = 1e-6

    @nn.compact
    def __call__(
        self,
        x: Array,
        mask: Array | None = None,
        keys: Array | None = None,
        memory: Array | None = None,
        memory_mask: Array | None = None,
    ) -> Array:
        """Runs the layers.

        Args:
          x: `[b, l, width]`.
          mask: bool `[b, l, l]` or `[b, 1, l, l]`, or 1 for b and the first l; True where the query
            of axis -2 may look at the key of axis -1. Rows without any True stay finite.
          keys: `[b]`, one random key an example, of the dropout; None outside training.
          memory: `[b, m, width]`, with cross.
          memory_mask: bool `[b, m]`, True where the memory may be looked at; None: everywhere.

        Returns:
          `[b, l, width]` float32, after a layer norm.
        """
        if mask is not None and mask.ndim == 3:
            mask = mask[:, None]
        x = self.constrain(x.astype(DTYPES[self.dtype]))
        around = Around(
            mask=mask,
            memory=None if memory is None else self.constrain(memory.astype(x.dtype)),
            memory_mask=None if memory_mask is None else memory_mask[:, None, None],
            keys=keys if self.dropout else None,
        )
        layer = self.layer(x.shape[-1])
        block = Block
        if self.remat != "none":
            # A scan keeps XLA from merging the two forward passes by itself.
            block = nn.remat(Block, prevent_cse=not self.scan, policy=REMAT[self.remat])
        if self.scan:
            stack = nn.scan(
                block,
                variable_axes={"params": 0},
                split_rngs={"params": True},
                in_axes=(nn.broadcast, 0),
                length=self.depth,
            )
            x, _ = stack(**layer, name="blocks")(x, around, jnp.arange(self.depth))
        else:
            for i in range(self.depth):
                x, _ = block(**layer, name=f"block_{i}")(x, around, jnp.int32(i))
        if self.norms == "pre":
            x = nn.LayerNorm(self.epsilon, dtype=jnp.float32, name="norm")(x)
        return self.constrain(x.astype(jnp.float32))

    def bound_blocks(self, width: int) -> list[Block]:
        """The layers one by one, of a decoder that is initialised; with scan, too."""
        params = self.variables["params"]
        block = Block(**self.layer(width), parent=None)

        def of_layer(i: int) -> PyTree:
            if self.scan:
                return jax.tree.map(lambda leaf: leaf[i], params["blocks"])
            return params[f"block_{i}"]

        return [block.bind({"params": of_layer(i)}) for i in range(self.depth)]

    def finish(self, x: Array) -> Array:
        """What follows the layers, for who ran them: `[b, l, width]` to the same in float32."""
        if self.norms == "post":
            return x.astype(jnp.float32)
        norm = nn.LayerNorm(self.epsilon, dtype=jnp.float32, parent=None)
        return norm.apply({"params": self.variables["params"]["norm"]}, x)

    def layer(self, width: int) -> dict[str, Any]:
        """The fields of one `Block`."""
        return {
            "width": width,
            "heads": self.heads,
            "mlp_dim": self.mlp_dim or 4 * width,
            "depth": self.depth,
            "dtype": self.dtype,
            "dropout": self.dropout,
            "constrain": self.constrain,
            "cross": self.cross,
            "norms": self.norms,
            "activation": self.activation,
            "epsilon": self.epsilon,
        }


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


def check_encoder(tower: nn.Module) -> None:
    """As `check_transformer`, for a tower that also chooses norm and activation."""
    check_transformer(tower)
    owner = type(tower).__name__
    check_choice(owner, "norm", tower.norm, NORMS)
    check_choice(owner, "activation", tower.activation, ACTIVATIONS)
    if tower.epsilon <= 0:
        raise UsageError(f"{owner}: epsilon={tower.epsilon} must be above 0")


def check_rows(owner: str, rows: Array, field: str, limit: int) -> None:
    """Refuses rows `[b, l, ...]` that are longer than a field of their tower says.

    Raises:
      UsageError: naming the tower, the length, the field and its value.
    """
    length = rows.shape[1]
    if length > limit:
        raise UsageError(f"{owner}: rows of {length} tokens do not fit {field}={limit}")
