"""How an image becomes the square that the image tower sees."""

import dataclasses
import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from nlip_jax.data.images import color, geometry
from nlip_jax.data.images.crop import RESIZE, Box, on_grid, random_resized_crop
from nlip_jax.data.images.decode import MAX_PIXELS, decode_square
from nlip_jax.data.images.policies import MAX_MAGNITUDE, POLICIES
from nlip_jax.data.images.resize import resize
from nlip_jax.data.source import Picture
from nlip_jax.errors import UsageError

_CROP, _AUGMENT = 0, 1  # each draws from a stream of its own
_MOST_PIXELS = 178_956_970  # Pillow opens nothing larger


@dataclasses.dataclass(frozen=True)
class ImageTransform:
    """Decodes, crops, resizes and augments; a function of the picture and (seed, epoch, id, view).

    The order in augmentation is that of SimCLR: colours, grayscale, blur, flip, then the policy.

    Attributes:
      size: side of the square in pixels.
      resize: a key of `RESIZE`: what is seen where nothing is cropped at random.
      crop_scale: share of the area a random crop keeps; (1, 1) means no random crop.
      crop_ratio: smallest and largest width / height of a random crop.
      flip: mirror half of the images.
      color_jitter: how far brightness, contrast, saturation and hue may change.
      color_jitter_prob: share of images whose colours change.
      grayscale_prob: share of images that lose their colours.
      blur_prob: share of images that are blurred.
      blur_sigma: smallest and largest standard deviation of the blur, in pixels of the square.
      policy: a key of `POLICIES`.
      randaugment_ops: operations drawn for an image.
      randaugment_magnitude: of these, in [0, 10].
      max_pixels: images that have more are not decoded.
      seed: of all randomness.
    """

    size: int
    resize: str = "center_crop"
    crop_scale: tuple[float, float] = (1.0, 1.0)
    crop_ratio: tuple[float, float] = (3 / 4, 4 / 3)
    flip: bool = False
    color_jitter: tuple[float, float, float, float] = (0.0, 0.0, 0.0, 0.0)
    color_jitter_prob: float = 0.8
    grayscale_prob: float = 0.0
    blur_prob: float = 0.0
    blur_sigma: tuple[float, float] = (0.1, 2.0)
    policy: str = "none"
    randaugment_ops: int = 2
    randaugment_magnitude: float = 5.0
    max_pixels: int = MAX_PIXELS
    seed: int = 0

    def __post_init__(self):
        for field, (name, fits, rule) in _RULES.items():
            value = getattr(self, field)
            if not fits(value):
                raise UsageError(f"config.data.{name}={value!r}: {rule}")

    @property
    def crops(self) -> bool:
        """Whether a random part of the image is seen."""
        return tuple(self.crop_scale) != (1.0, 1.0)

    @property
    def augments(self) -> bool:
        """Whether the square is changed at random."""
        jitters = any(self.color_jitter) and self.color_jitter_prob > 0
        blurs_or_greys = self.grayscale_prob > 0 or self.blur_prob > 0
        return self.flip or jitters or blurs_or_greys or self.policy != "none"

    @property
    def is_random(self) -> bool:
        """Whether one image can give several squares."""
        return self.crops or self.augments

    def without_augmentation(self) -> "ImageTransform":
        """The transform of evaluation and of passes over the data set."""
        return ImageTransform(size=self.size, resize=self.resize, max_pixels=self.max_pixels)

    def __call__(
        self, picture: Picture, *, example_id: int, epoch: int, view: int = 0
    ) -> np.ndarray:
        """Makes the square of a picture.

        Args:
          picture: an image file, or `[h, w, 3]` uint8.
          example_id: of the example.
          epoch: in which it is seen.
          view: another number gives another draw for the same example and epoch.

        Returns:
          `[size, size, 3]` uint8.

        Raises:
          ReadError: the file cannot be decoded.
        """
        square = self.crop(picture, example_id=example_id, epoch=epoch, view=view)
        return self.augment(square, example_id=example_id, epoch=epoch, view=view)

    def crop(self, picture: Picture, *, example_id: int, epoch: int, view: int = 0) -> np.ndarray:
        """The first half of a call: decodes, crops and resizes."""

        def choose(height: int, width: int) -> Box:
            if not self.crops:
                return on_grid(RESIZE[self.resize](height, width), self.size)
            rng = np.random.default_rng((self.seed, epoch, example_id, view, _CROP))
            scale, ratio = tuple(self.crop_scale), tuple(self.crop_ratio)
            box = random_resized_crop(height, width, scale=scale, ratio=ratio, rng=rng)
            return on_grid(box, self.size)

        if isinstance(picture, bytes):
            return decode_square(picture, self.size, choose=choose, max_pixels=self.max_pixels)
        return resize(choose(*picture.shape[:2]).of(picture), self.size)

    def augment(
        self, square: np.ndarray, *, example_id: int, epoch: int, view: int = 0
    ) -> np.ndarray:
        """The second half of a call: changes the square at random."""
        if not self.augments:
            return square
        rng = np.random.default_rng((self.seed, epoch, example_id, view, _AUGMENT))
        jitters, greys, blurs, flips = rng.random(4) < (
            self.color_jitter_prob,
            self.grayscale_prob,
            self.blur_prob,
            0.5 if self.flip else 0.0,
        )
        if jitters:
            square = color.color_jitter(square, self.color_jitter, rng)
        if greys:
            square = color.grayscale(square)
        if blurs:
            square = color.gaussian_blur(square, rng.uniform(*self.blur_sigma))
        if flips:
            square = geometry.flip(square)
        return POLICIES[self.policy](
            square, rng, num_ops=self.randaugment_ops, magnitude=self.randaugment_magnitude
        )


def _is_range(most: float) -> Callable[[Sequence[float]], bool]:
    """Whether the values are two, positive, in order and at most `most`."""
    return lambda values: len(values) == 2 and 0 < values[0] <= values[1] <= most


_SHARE = (lambda value: 0 <= value <= 1, "must be a share in [0, 1]")
# Field -> its name below config.data, what it must be, and that in words.
_RULES: dict[str, tuple[str, Callable[[Any], bool], str]] = {
    "size": ("image_size", lambda value: value >= 1, "must be at least 1 pixel"),
    "resize": ("resize", RESIZE.__contains__, f"choose one of {', '.join(RESIZE)}"),
    "crop_scale": ("crop_scale", _is_range(1), "must be two shares 0 < low <= high <= 1"),
    "crop_ratio": ("crop_ratio", _is_range(math.inf), "must be two ratios 0 < low <= high"),
    "color_jitter": (
        "augment.color_jitter",
        lambda value: len(value) == 4 and min(value) >= 0 and value[3] <= 0.5,
        "must be four amounts of at least 0, of which the last, for hue, is at most 0.5",
    ),
    "color_jitter_prob": ("augment.color_jitter_prob", *_SHARE),
    "grayscale_prob": ("augment.grayscale_prob", *_SHARE),
    "blur_prob": ("augment.blur_prob", *_SHARE),
    "blur_sigma": (
        "augment.blur_sigma",
        _is_range(math.inf),
        "must be two numbers of pixels 0 < low <= high",
    ),
    "policy": ("augment.policy", POLICIES.__contains__, f"choose one of {', '.join(POLICIES)}"),
    "randaugment_ops": (
        "augment.randaugment_ops",
        lambda value: value >= 0,
        "must be a number of operations of at least 0",
    ),
    "randaugment_magnitude": (
        "augment.randaugment_magnitude",
        lambda value: 0 <= value <= MAX_MAGNITUDE,
        f"must be in [0, {MAX_MAGNITUDE}]",
    ),
    "max_pixels": (
        "max_pixels",
        lambda value: 1 <= value <= _MOST_PIXELS,
        f"must be in [1, {_MOST_PIXELS}]",
    ),
}
