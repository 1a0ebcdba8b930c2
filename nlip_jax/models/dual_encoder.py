"""Two towers and the space they share (CLIP, arXiv:2103.00020; ALIGN, arXiv:2102.05918)."""

import functools
import math
from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp

from nlip_jax.errors import UsageError
from nlip_jax.models.block import unconstrained
from nlip_jax.models.dropout import fold
from nlip_jax.types import Array


class DualEncoder(nn.Module):
    """An image tower and a text tower, each with a linear projection to one embedding space.

    Any module will do as a tower that takes its inputs and the random keys of its dropout (None
    outside training), and returns a dict with `pooled` `[b, width]`, `tokens` `[b, p, width]` and,
    for text, `mask` `[b, l]`. The projections have no bias and start with
    standard deviation width ** -0.5, as CLIP's; they are computed in float32.

    Attributes:
      image: the image tower.
      text: the text tower.
      embed_dim: of the shared space, `d`.
      init_temperature: the softmax temperature at the start; logit_scale starts at its inverse.
      max_logit_scale: logit_scale never exceeds it; see `bounded_exp`.
      logit_bias_init: start of a learned bias of the logits (SigLIP's -10); None for none.
      token_features: also project every token, as token-wise similarity (FILIP) needs.
      constrain: says how the embeddings lie on a mesh; see `layers.Encoder`.
    """

    image: nn.Module
    text: nn.Module
    embed_dim: int
    init_temperature: float = 0.07
    max_logit_scale: float = 100.0
    logit_bias_init: float | None = None
    token_features: bool = False
    constrain: Callable[[Array], Array] = unconstrained

    def __post_init__(self):
        owner = type(self).__name__
        if self.embed_dim < 1:
            raise UsageError(f"{owner}: embed_dim={self.embed_dim} must be 1 or more")
        if self.max_logit_scale <= 0 or self.init_temperature * self.max_logit_scale < 1:
            raise UsageError(
                f"{owner}: init_temperature={self.init_temperature} must be at least "
                f"1 / max_logit_scale, with max_logit_scale={self.max_logit_scale} above 0"
            )
        super().__post_init__()

    def setup(self):
        """Makes the parts that `encode_image`, `encode_text` and the scalars share."""
        self.image_projection = self._projection(self.image.width)
        self.text_projection = self._projection(self.text.width)
        start = nn.initializers.constant(-math.log(self.init_temperature))
        self.log_scale = self.param("log_scale", start, (), jnp.float32)
        if self.logit_bias_init is not None:
            start = nn.initializers.constant(self.logit_bias_init)
            self.bias = self.param("logit_bias", start, (), jnp.float32)

    def __call__(
        self, image: Array, tokens: Array, keys: Array | None = None
    ) -> dict[str, Array]:
        """Encodes both sides of a batch.

        Args:
          image: `[b, h, w, 3]` float in [-1, 1].
          tokens: `[b, l]` int32, 0 is padding.
          keys: `[b]`, one random key an example, of the towers' dropout; None outside training.

        Returns:
          All of `encode_image` and `encode_text`; all float32 but text_mask.
        """
        image_features = self.encode_image(image, fold(keys, 0))
        return {**image_features, **self.encode_text(tokens, fold(keys, 1))}

    def encode_image(self, image: Array, keys: Array | None = None) -> dict[str, Array]:
        """Encodes images, `[b, h, w, 3]` float in [-1, 1]; in training with random keys, `[b]`.

        Returns:
          image_embed: `[b, d]`, of length 1.
          image_tokens: `[b, p, d]`, each of length 1; with token_features.
        """
        return self._image_outputs(self.image(image, keys))

    def pool_image(self, image: Array) -> dict[str, Array]:
        """What the image tower says of images before the projection: `pooled` `[b, width]`."""
        return {"pooled": self.image(image, None)["pooled"].astype(jnp.float32)}

    def encode_text(self, tokens: Array, keys: Array | None = None) -> dict[str, Array]:
        """Encodes captions, `[b, l]` int32; in training with random keys, `[b]`.

        Returns:
          text_embed: `[b, d]`, of length 1.
          text_tokens: `[b, l, d]`, each of length 1; with token_features.
          text_mask: `[b, l]` bool, False on padding; with token_features.
        """
        return self._text_outputs(self.text(tokens, keys))

    def logit_scale(self) -> Array:
        """The factor of the similarities, 1 / temperature: `()` float32."""
        return bounded_exp(self.log_scale, self.max_logit_scale)

    def logit_bias(self) -> Array | None:
        """The summand of the logits: `()` float32; None for a model without."""
        return None if self.logit_bias_init is None else self.bias

    def _image_outputs(self, features: dict[str, Array]) -> dict[str, Array]:
        outputs = {"image_embed": self._embed(self.image_projection, features["pooled"])}
        if self.token_features:
            outputs["image_tokens"] = self._embed(self.image_projection, features["tokens"])
        return outputs

    def _text_outputs(self, features: dict[str, Array]) -> dict[str, Array]:
        outputs = {"text_embed": self._embed(self.text_projection, features["pooled"])}
        if self.token_features:
            outputs["text_tokens"] = self._embed(self.text_projection, features["tokens"])
            outputs["text_mask"] = features["mask"]
        return outputs

    def _embed(self, projection: nn.Dense, x: Array) -> Array:
        return normalize(self.constrain(projection(self.constrain(x))))

    def _projection(self, width: int) -> nn.Dense:
        init = nn.initializers.normal(width**-0.5)
        return nn.Dense(self.embed_dim, use_bias=False, dtype=jnp.float32, kernel_init=init)


def normalize(x: Array) -> Array:
    """Scales vectors along the last axis to length 1, in float32; zeros have zeros as gradient."""
    x = x.astype(jnp.float32)
    square = jnp.sum(x * x, axis=-1, keepdims=True)
    zero = square < 1e-24
    return jnp.where(zero, 0.0, x * jax.lax.rsqrt(jnp.where(zero, 1.0, square)))


@functools.partial(jax.custom_vjp, nondiff_argnums=(1,))
def bounded_exp(x: Array, bound: float) -> Array:
    """min(exp(x), bound), with a gradient that leads back from the bound.

    CLIP clips the parameter after every step. The pure counterpart: at or above the bound, the
    gradient is that of exp at the bound where a descent step would lower x, and zero where it
    would raise x further. So x neither sticks at the bound (as under a plain minimum) nor runs
    away from it (as under a straight-through one). The rule looks at the sign of the gradient of
    the loss: evaluate it once per loss, not once per part of a sum.
    """
    return jnp.minimum(jnp.exp(x), bound)


def _bounded_exp_forward(x: Array, bound: float) -> tuple[Array, Array]:
    y = bounded_exp(x, bound)
    return y, y


def _bounded_exp_backward(bound: float, y: Array, gradient: Array) -> tuple[Array]:
    return (jnp.where((y >= bound) & (gradient < 0), 0.0, gradient * y),)


bounded_exp.defvjp(_bounded_exp_forward, _bounded_exp_backward)
