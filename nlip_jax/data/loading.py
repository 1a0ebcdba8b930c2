"""From an example's number to the arrays of its row: read, decode, augment, tokenise.

Each class is a small picklable function of (id, epoch); all randomness comes from
(seed, epoch, id), so neither the order of workers nor their number matters.
"""

import dataclasses
import time
from typing import Protocol

import numpy as np

from nlip_jax.data.images.transform import ImageTransform
from nlip_jax.data.source import Source
from nlip_jax.data.text.masking import MaskText
from nlip_jax.data.text.tokenizer import Tokenizer

# What the making of a row consists of, in this order. A row that says how long each took, as
# "stage_seconds" `[4]` float32, lets the trainer name the slow one.
STAGES = ("read", "decode", "augment", "tokenise")


class Loader(Protocol):
    """Makes one row."""

    def __call__(self, example_id: int, epoch: int) -> dict[str, np.ndarray]:
        """The arrays of one example.

        Raises:
          ReadError: it cannot be read.
        """
        ...


@dataclasses.dataclass(frozen=True)
class LoadPair:
    """Image and caption of an example.

    Attributes:
      source: the data set.
      tokenizer: of the captions.
      transform: of the images.
      second_view: also augment the image a second time, as "image_view".
      mask: also mask the tokens, as "masked_tokens" and "mask_labels".
      numbers_images: also tell which image of the source it is, as "image_id".
    """

    source: Source
    tokenizer: Tokenizer
    transform: ImageTransform
    second_view: bool = False
    mask: MaskText | None = None
    numbers_images: bool = False

    def __call__(self, example_id: int, epoch: int) -> dict[str, np.ndarray]:
        """The arrays of one example."""
        begun = time.perf_counter()
        image_id = self.source.image_id(example_id)
        picture = self.source.picture(image_id)
        caption = self.source.caption(example_id, epoch)
        read = time.perf_counter()
        names = ("image", "image_view") if self.second_view else ("image",)
        squares = [
            self.transform.crop(picture, example_id=example_id, epoch=epoch, view=view)
            for view in range(len(names))
        ]
        decoded = time.perf_counter()
        images = [
            self.transform.augment(square, example_id=example_id, epoch=epoch, view=view)
            for view, square in enumerate(squares)
        ]
        augmented = time.perf_counter()
        row = dict(zip(names, images, strict=True)) | {"tokens": self.tokenizer.encode(caption)}
        if self.mask is not None:
            masked = self.mask(row["tokens"], example_id=example_id, epoch=epoch)
            row |= {"masked_tokens": masked.inputs, "mask_labels": masked.labels}
        if self.numbers_images:
            row |= {"image_id": np.array(image_id, np.int32)}
        done = time.perf_counter()
        seconds = (read - begun, decoded - read, augmented - decoded, done - augmented)
        return row | {"stage_seconds": np.array(seconds, np.float32)}


@dataclasses.dataclass(frozen=True)
class LoadImage:
    """An image by its own number, for evaluation."""

    source: Source
    transform: ImageTransform

    def __call__(self, example_id: int, epoch: int) -> dict[str, np.ndarray]:
        """The arrays of one image."""
        picture = self.source.picture(example_id)
        return {"image": self.transform(picture, example_id=example_id, epoch=epoch)}


@dataclasses.dataclass(frozen=True)
class LoadCaption:
    """The caption of an example, for evaluation."""

    source: Source
    tokenizer: Tokenizer

    def __call__(self, example_id: int, epoch: int) -> dict[str, np.ndarray]:
        """The arrays of one caption."""
        return {"tokens": self.tokenizer.encode(self.source.caption(example_id, epoch))}


@dataclasses.dataclass(frozen=True)
class LoadText:
    """A text by its place in a list, for evaluation."""

    texts: tuple[str, ...]
    tokenizer: Tokenizer

    def __call__(self, example_id: int, epoch: int) -> dict[str, np.ndarray]:
        """The arrays of one text."""
        del epoch
        return {"tokens": self.tokenizer.encode(self.texts[example_id])}
