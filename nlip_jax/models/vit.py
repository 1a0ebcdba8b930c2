"""Vision Transformer (Dosovitskiy et al., arXiv:2010.11929) as an image tower."""

from collections.abc import Callable

import einops
import flax.linen as nn
import jax.numpy as jnp
import numpy as np

from nlip_jax.errors import UsageError
from nlip_jax.models.block import DTYPES, Attention, Mlp, unconstrained
from nlip_jax.models.layers import Encoder, check_choice, check_transformer
from nlip_jax.types import Array

POOLS = ("cls", "mean", "map")
POSITIONS = ("learned", "sincos2d")


class VisionTransformer(nn.Module):
    """Images to features.

    Attributes:
      patch_size: pixels along one side of a patch.
      image_size: pixels along one side of the (square) images.
      width: of the residual stream.
      depth: number of layers.
      heads: attention heads; divides the width.
      mlp_dim: width inside the MLPs; None means 4 * width.
      pool: "cls" takes an extra first token's output, "mean" the mean over patches, "map" lets a
        learned query attend over patches (as SigLIP, arXiv:2303.15343).
      position: "learned", one vector a patch, or "sincos2d", fixed (as MAE, arXiv:2111.06377).
      dtype: compute dtype, "float32" or "bfloat16"; parameters and outputs are float32.
      remat: see `layers.Encoder`.
      scan: see `layers.Encoder`.
      dropout: see `layers.Encoder`.
      constrain: see `layers.Encoder`.

    Raises:
      UsageError: on construction, for fields that do not fit each other.
    """

    patch_size: int
    image_size: int
    width: int
    depth: int
    heads: int
    mlp_dim: int | None = None
    pool: str = "cls"
    position: str = "learned"
    dtype: str = "float32"
    remat: str = "none"
    scan: bool = False
    dropout: float = 0.0
    constrain: Callable[[Array], Array] = unconstrained

    def __post_init__(self):
        check_transformer(self)
        check_choice("VisionTransformer", "pool", self.pool, POOLS)
        check_choice("VisionTransformer", "position", self.position, POSITIONS)
        if self.patch_size < 1 or self.image_size < 1 or self.image_size % self.patch_size:
            raise UsageError(
                f"VisionTransformer: image_size={self.image_size} is not divisible by "
                f"patch_size={self.patch_size}"
            )
        if self.position == "sincos2d" and self.width % 4:
            raise UsageError(
                f"VisionTransformer: width={self.width} is not divisible by 4, as "
                "position='sincos2d' needs it; use position='learned'"
            )
        super().__post_init__()

    @property
    def grid_size(self) -> int:
        """Patches along one side of an image."""
        return self.image_size // self.patch_size

    @property
    def num_patches(self) -> int:
        """Patches of an image."""
        return self.grid_size**2

    @property
    def num_tokens(self) -> int:
        """Length of the sequence: patches, and one more for pool="cls"."""
        return self.num_patches + (self.pool == "cls")

    @nn.compact
    def __call__(
        self, image: Array, keys: Array | None = None, visible: Array | None = None
    ) -> dict[str, Array]:
        """Encodes images.

        Args:
          image: `[b, h, w, 3]` float in [-1, 1]; h = w = image_size.
          keys: `[b]`, see `layers.Encoder`.
          visible: `[b, v]` int32, the patches that the layers see; None: all of them.

        Returns:
          pooled: `[b, width]` float32.
          tokens: `[b, p, width]` float32, after the final layer norm; with pool="cls" the first
            one is not of a patch; with visible, only those.
        """
        if image.shape[1:] != (self.image_size, self.image_size, 3):
            raise UsageError(
                f"VisionTransformer: images of shape {image.shape[1:]} do not fit "
                f"image_size={self.image_size}"
            )
        size = self.patch_size
        std = self.width**-0.5
        patches = einops.rearrange(image, "b (h y) (w x) c -> b (h w) (y x c)", y=size, x=size)
        x = nn.Dense(self.width, dtype=DTYPES[self.dtype], name="embedding")(patches)
        x = x + self._position(std)
        if visible is not None:
            x = jnp.take_along_axis(x, visible[..., None], axis=1)
        if self.pool == "cls":
            first = self.param("cls", nn.initializers.normal(std), (1, 1, self.width), jnp.float32)
            x = jnp.concatenate([jnp.broadcast_to(first, (len(x), 1, self.width)), x], axis=1)
        tokens = Encoder(
            depth=self.depth,
            heads=self.heads,
            mlp_dim=self.mlp_dim,
            dtype=self.dtype,
            remat=self.remat,
            scan=self.scan,
            dropout=self.dropout,
            constrain=self.constrain,
            name="encoder",
        )(x, keys=keys)
        return {"pooled": self._pool(tokens), "tokens": tokens}

    def _position(self, std: float) -> Array:
        if self.position == "sincos2d":
            return jnp.asarray(sincos2d(self.grid_size, self.width))
        # The cls token needs no position of its own: it is learned anyway.
        shape = (self.grid_size**2, self.width)
        return self.param("position", nn.initializers.normal(std), shape, jnp.float32)

    def _pool(self, tokens: Array) -> Array:
        if self.pool == "cls":
            return tokens[:, 0]
        if self.pool == "mean":
            return jnp.mean(tokens, axis=1)
        return AttentionPool(self.heads, self.mlp_dim, self.dtype, name="pool_head")(tokens)


class AttentionPool(nn.Module):
    """A learned query attends over the tokens; an MLP follows (Set Transformer's PMA)."""

    heads: int
    mlp_dim: int | None = None
    dtype: str = "float32"

    @nn.compact
    def __call__(self, tokens: Array) -> Array:
        """`[b, p, width]` to `[b, width]` float32."""
        width = tokens.shape[-1]
        init = nn.initializers.normal(width**-0.5)
        query = self.param("query", init, (1, 1, width), jnp.float32)
        query = jnp.broadcast_to(query, (len(tokens), 1, width))
        x = Attention(width, self.heads, dtype=self.dtype, name="attention")(query, tokens)
        y = nn.LayerNorm(dtype=jnp.float32, name="mlp_norm")(x)
        x = x + Mlp(self.mlp_dim or 4 * width, dtype=self.dtype, name="mlp")(y)
        return x[:, 0].astype(jnp.float32)


def sincos2d(grid_size: int, width: int) -> np.ndarray:
    """Fixed position embeddings: sines and cosines of the row and of the column.

    Args:
      grid_size: patches along one side.
      width: of the embeddings; divisible by 4.

    Returns:
      `[grid_size ** 2, width]` float32; patches in rows.
    """
    frequency = 10_000.0 ** (-np.arange(width // 4) / (width // 4))
    angle = np.arange(grid_size)[:, None] * frequency
    line = np.concatenate([np.sin(angle), np.cos(angle)], axis=1)
    rows = np.repeat(line, grid_size, axis=0)
    columns = np.tile(line, (grid_size, 1))
    return np.concatenate([rows, columns], axis=1).astype(np.float32)
