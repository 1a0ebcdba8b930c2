"""What hiding patches saves: a contrastive step, forward and backward, by share that is hidden.

The image encoder runs on the patches that stay; the texts cost what they cost. The model is NLIP's
with the sizes of ViT-S/16, on images of 224 pixels.
"""

import dataclasses
import time
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from nlip_jax.commands.benchmarks.caption_setting import draw_variables
from nlip_jax.losses import targets
from nlip_jax.losses.contrastive import contrast
from nlip_jax.losses.engine import Engine
from nlip_jax.losses.normalisers import NORMALISERS
from nlip_jax.losses.sides import Problem
from nlip_jax.methods.base import scale_image
from nlip_jax.methods.similarities import DOT
from nlip_jax.models.caption_decoder import CaptionDecoder
from nlip_jax.models.dropout import example_keys
from nlip_jax.models.four_part import FourPart
from nlip_jax.models.text_encoder import TextEncoder
from nlip_jax.models.vit import VisionTransformer
from nlip_jax.types import Array, PyTree


@dataclasses.dataclass(frozen=True, kw_only=True)
class Setting:
    """Sizes.

    Attributes:
      ratios: shares of the patches that are hidden; 0 is one of them.
      batch_size: pairs.
      image_size: pixels along one side.
      patch_size: pixels along one side.
      width: of the image encoder and of both text parts.
      depth: layers of the image encoder; each of the text parts has half of them.
      heads: attention heads of each part.
      vocab_size: ids.
      context_length: tokens of a text, all of them used.
      calls: of each ratio, taking turns.
    """

    ratios: tuple[float, ...] = (0.0, 0.25, 0.5, 0.75)
    batch_size: int = 8
    image_size: int = 224
    patch_size: int = 16
    width: int = 384
    depth: int = 12
    heads: int = 6
    vocab_size: int = 8000
    context_length: int = 32
    calls: int = 3

    def model(self, mask_ratio: float) -> FourPart:
        """NLIP's model without what captions and reconstruction add."""
        shared = {"width": self.width, "heads": self.heads, "scan": True}
        text = {"context_length": self.context_length, "depth": self.depth // 2, **shared}
        return FourPart(
            image=VisionTransformer(
                patch_size=self.patch_size, image_size=self.image_size, depth=self.depth, **shared
            ),
            text=TextEncoder(vocab_size=self.vocab_size, **text),
            decoder=CaptionDecoder(**text),
            embed_dim=256,
            mask_ratio=mask_ratio,
            captions=False,
        )


def run(setting: Setting | None = None) -> dict[str, float]:
    """Times all shares in turns; medians over the calls.

    Args:
      setting: sizes; None: those of ViT-S/16.

    Returns:
      masking/SHARE/seconds, of a step; masking/SHARE/of_whole, that over the seconds with nothing
      hidden; masking/batch_size.
    """
    setting = setting or Setting()
    rng = np.random.default_rng(0)
    shape = (setting.batch_size, setting.image_size, setting.image_size, 3)
    batch = {
        "image": rng.integers(0, 256, shape, np.uint8),
        "tokens": rng.integers(
            4, setting.vocab_size, (setting.batch_size, setting.context_length), np.int32
        ),
        "keys": example_keys(jax.random.key(0), jnp.arange(setting.batch_size)),
    }
    params = jax.device_put(draw_variables(setting.model(0.0), std=0.02))
    steps = {ratio: jax.jit(_step(setting.model(ratio))) for ratio in setting.ratios}
    seconds: dict[float, list[float]] = {ratio: [] for ratio in steps}
    for call in range(-1, setting.calls):  # call -1 compiles
        for ratio, step in steps.items():
            begun = time.perf_counter()
            jax.block_until_ready(step(params, batch))
            if call >= 0:
                seconds[ratio].append(time.perf_counter() - begun)
    medians = {ratio: float(np.median(times)) for ratio, times in seconds.items()}
    return {
        **{f"masking/{ratio}/seconds": taken for ratio, taken in medians.items()},
        **{f"masking/{ratio}/of_whole": taken / medians[0.0] for ratio, taken in medians.items()},
        "masking/batch_size": float(setting.batch_size),
    }


def _step(model: FourPart) -> Callable[[PyTree, PyTree], tuple[Array, PyTree]]:
    """The contrastive loss and its gradients."""
    engine = Engine()
    problem = Problem(similarity=DOT.compare, normaliser=NORMALISERS["softmax"])

    def loss(params: PyTree, batch: PyTree) -> Array:
        image = scale_image(batch["image"])
        seen = model.apply(params, image, batch["keys"], method="encode_masked_image")
        read = model.apply(params, batch["tokens"], batch["keys"], method="encode_text")
        scale = model.apply(params, method="logit_scale")
        sides = DOT.images(seen), DOT.texts(read)
        return contrast(engine, problem, *sides, targets=targets.identity, scale=scale).loss

    return jax.value_and_grad(loss)
