"""From an example's number to the arrays of its row: read, resize, augment, tokenise.

Each class is a small picklable function of (id, epoch); all randomness comes from
(seed, epoch, id), so neither the order of workers nor their number matters.
"""

import dataclasses
from collections.abc import Callable
from typing import Protocol

import numpy as np

from nlip_jax.data import decode
from nlip_jax.data.source import Source
from nlip_jax.data.tokenizer import Tokenizer
from nlip_jax.errors import UsageError

RESIZE = {"center_crop": decode.resize_center_crop, "squash": decode.squash}


class Loader(Protocol):
    """Makes one row."""

    def __call__(self, example_id: int, epoch: int) -> dict[str, np.ndarray]:
        """The arrays of one example."""
        ...


@dataclasses.dataclass(frozen=True)
class ImageTransform:
    """How an image becomes the square that the image tower sees.

    Attributes:
      size: of the square, in pixels.
      resize: (image, size) -> square, such as those of `RESIZE`.
      crop_scale: share of the area a random crop keeps; (1, 1) means no random crop.
      flip: mirror half of the images.
      seed: of the augmentation.
    """

    size: int
    resize: Callable[[np.ndarray, int], np.ndarray] = decode.resize_center_crop
    crop_scale: tuple[float, float] = (1.0, 1.0)
    flip: bool = False
    seed: int = 0

    def __post_init__(self):
        if len(self.crop_scale) != 2 or not 0 < self.crop_scale[0] <= self.crop_scale[1] <= 1:
            raise UsageError(
                f"config.data.crop_scale={self.crop_scale}: must be two shares 0 < low <= high <= 1"
            )

    @property
    def is_random(self) -> bool:
        """Whether one image can give several squares."""
        return self.flip or tuple(self.crop_scale) != (1.0, 1.0)

    def without_augmentation(self) -> "ImageTransform":
        """The transform of evaluation and of passes over the data set."""
        return dataclasses.replace(self, crop_scale=(1.0, 1.0), flip=False)

    def __call__(self, image: np.ndarray, *, example_id: int, epoch: int) -> np.ndarray:
        """[h, w, 3] uint8 -> [size, size, 3] uint8."""
        if not self.is_random:
            return self.resize(image, self.size)
        rng = np.random.default_rng((self.seed, epoch, example_id))
        if tuple(self.crop_scale) == (1.0, 1.0):
            square = self.resize(image, self.size)
            return np.ascontiguousarray(square[:, ::-1]) if rng.random() < 0.5 else square
        return decode.random_resized_crop(
            image, self.size, scale=tuple(self.crop_scale), flip=self.flip, rng=rng
        )


@dataclasses.dataclass(frozen=True)
class LoadPair:
    """Image and caption of an example."""

    source: Source
    tokenizer: Tokenizer
    transform: ImageTransform

    def __call__(self, example_id: int, epoch: int) -> dict[str, np.ndarray]:
        """The arrays of one example."""
        image = self.source.image(self.source.image_id(example_id))
        return {
            "image": self.transform(image, example_id=example_id, epoch=epoch),
            "tokens": self.tokenizer.encode(self.source.caption(example_id, epoch)),
        }


@dataclasses.dataclass(frozen=True)
class LoadImage:
    """An image by its own number, for evaluation."""

    source: Source
    transform: ImageTransform

    def __call__(self, example_id: int, epoch: int) -> dict[str, np.ndarray]:
        """The arrays of one image."""
        image = self.source.image(example_id)
        return {"image": self.transform(image, example_id=example_id, epoch=epoch)}


@dataclasses.dataclass(frozen=True)
class LoadText:
    """A text by its place in a list, for evaluation."""

    texts: tuple[str, ...]
    tokenizer: Tokenizer

    def __call__(self, example_id: int, epoch: int) -> dict[str, np.ndarray]:
        """The arrays of one text."""
        del epoch
        return {"tokens": self.tokenizer.encode(self.texts[example_id])}
