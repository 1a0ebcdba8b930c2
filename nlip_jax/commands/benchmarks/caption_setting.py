"""The model whose captions `benchmark caption` makes, and what it makes them of."""

import dataclasses

import jax
import numpy as np

from nlip_jax.models.caption_decoder import CaptionDecoder
from nlip_jax.models.four_part import FourPart
from nlip_jax.models.text_encoder import TextEncoder
from nlip_jax.models.vit import VisionTransformer
from nlip_jax.types import Array, PyTree

BOS, EOS, PAD = 2, 3, 0


@dataclasses.dataclass(frozen=True, kw_only=True)
class Setting:
    """Sizes; the defaults are those of configs/quickstart.py with concepts.

    Attributes:
      batch_size: images.
      pieces: of every caption, without [bos] and [eos].
      image_size: pixels along one side.
      patch_size: pixels along one side.
      width: of all parts.
      depth: layers of each part.
      heads: attention heads of each part.
      vocab_size: ids.
      context_length: tokens of a row, which loops without a cache fill up.
      concept_length: tokens of an image's concepts.
      calls: of each way, taking turns.
    """

    batch_size: int = 64
    pieces: int = 20
    image_size: int = 32
    patch_size: int = 8
    width: int = 64
    depth: int = 2
    heads: int = 2
    vocab_size: int = 1000
    context_length: int = 28
    concept_length: int = 15
    calls: int = 15

    def model(self) -> FourPart:
        """The model, without the decoder of images, which captions do not need."""
        part = {"width": self.width, "depth": self.depth, "heads": self.heads}
        return FourPart(
            image=VisionTransformer(
                patch_size=self.patch_size, image_size=self.image_size, pool="mean", **part
            ),
            text=TextEncoder(
                vocab_size=self.vocab_size,
                context_length=self.context_length,
                concept_length=self.concept_length,
                **part,
            ),
            decoder=CaptionDecoder(context_length=self.context_length, **part),
            embed_dim=self.width,
        )

    def inputs(self) -> tuple[PyTree, Array, Array]:
        """Variables of the model, images `[b, h, w, 3]` uint8 and concepts `[b, c]` int32.

        Untrained, but with weights so large that captions are told apart by their images.
        """
        rng = np.random.default_rng(0)
        shape = (self.batch_size, self.image_size, self.image_size, 3)
        image = rng.integers(0, 256, shape, np.uint8)
        concepts = rng.integers(
            EOS + 1, self.vocab_size, (self.batch_size, self.concept_length), np.int32
        )
        variables = draw_variables(self.model(), std=2 * self.width**-0.5)
        return jax.device_put((variables, image, concepts))


def draw_variables(model: FourPart, *, std: float) -> PyTree:
    """Parameters at random, without the time that it takes to compile their init."""
    rng, size = np.random.default_rng(1), model.image.image_size
    image = jax.ShapeDtypeStruct((1, size, size, 3), np.float32)
    tokens = jax.ShapeDtypeStruct((1, model.text.context_length), np.int32)
    abstract = jax.eval_shape(model.init, jax.random.key(0), image, tokens)

    def draw(path: tuple, leaf: jax.ShapeDtypeStruct) -> np.ndarray:
        center = float(path[-1].key == "scale")  # of layer norms
        return (center + std * rng.standard_normal(leaf.shape)).astype(leaf.dtype)

    return jax.tree_util.tree_map_with_path(draw, abstract)
