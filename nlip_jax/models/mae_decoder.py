"""V_d of NLIP: the decoder of masked images of MAE (He et al., arXiv:2111.06377)."""

from collections.abc import Callable

import flax.linen as nn
import jax.numpy as jnp

from nlip_jax.errors import UsageError
from nlip_jax.models.block import DTYPES, unconstrained
from nlip_jax.models.layers import Encoder, check_transformer
from nlip_jax.models.vit import sincos2d
from nlip_jax.types import Array


class MaeDecoder(nn.Module):
    """Features of visible patches to the pixels of all patches.

    Attributes:
      patch_size: pixels along one side of a patch.
      image_size: pixels along one side of the images.
      width: of the residual stream; divisible by 4.
      depth: number of layers.
      heads: attention heads; divides the width.
      mlp_dim: width inside the MLPs; None means 4 * width.
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
    dtype: str = "float32"
    remat: str = "none"
    scan: bool = False
    dropout: float = 0.0
    constrain: Callable[[Array], Array] = unconstrained

    def __post_init__(self):
        check_transformer(self)
        if self.width % 4:
            raise UsageError(
                f"MaeDecoder: width={self.width} is not divisible by 4, as its fixed positions "
                "need it"
            )
        super().__post_init__()

    @nn.compact
    def __call__(self, memory: Array, visible: Array, keys: Array | None = None) -> Array:
        """Predicts patches.

        Args:
          memory: `[b, v, width of the image tower]`, or `[b, 1 + v, ...]` with a first token that
            is not of a patch.
          visible: `[b, v]` int32, which patches these are.
          keys: `[b]`, see `layers.Encoder`.

        Returns:
          `[b, p, patch_size * patch_size * 3]` float32: patches in rows; pixels of a patch in
          rows, channels last.
        """
        dtype = DTYPES[self.dtype]
        others = memory.shape[1] - visible.shape[1]
        x = nn.Dense(self.width, dtype=dtype, name="embedding")(memory)
        init = nn.initializers.normal(0.02)
        hidden = self.param("mask_token", init, (self.width,), jnp.float32)
        grid_size = self.image_size // self.patch_size
        seen = (visible[:, :, None] == jnp.arange(grid_size**2)).any(axis=1)
        # The place of each visible patch among the visible ones; of a hidden one, any.
        place = jnp.maximum(jnp.cumsum(seen, axis=1) - 1, 0)
        patches = jnp.take_along_axis(x[:, others:], place[..., None], axis=1)
        patches = jnp.where(seen[..., None], patches, hidden)
        patches = patches + sincos2d(grid_size, self.width)
        x = Encoder(
            depth=self.depth,
            heads=self.heads,
            mlp_dim=self.mlp_dim,
            dtype=self.dtype,
            remat=self.remat,
            scan=self.scan,
            dropout=self.dropout,
            constrain=self.constrain,
            name="decoder",
        )(jnp.concatenate([x[:, :others], patches], axis=1), keys=keys)
        pixels = nn.Dense(self.patch_size**2 * 3, dtype=dtype, name="pixels")
        return pixels(x[:, others:]).astype(jnp.float32)
