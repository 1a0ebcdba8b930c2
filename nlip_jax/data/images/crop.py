"""Which part of an image becomes the square, in its own pixels; known before it is decoded."""

import dataclasses
import math
from collections.abc import Callable

import numpy as np

_TRIES = 10
# Factors by which JPEG decoders shrink while they decode, faster than they decode in full.
REDUCTIONS = (8, 4, 2)


@dataclasses.dataclass(frozen=True)
class Box:
    """A part of an image, in pixels.

    Attributes:
      top: first row.
      left: first column.
      height: number of rows.
      width: number of columns.
    """

    top: int
    left: int
    height: int
    width: int

    def of(self, image: np.ndarray) -> np.ndarray:
        """The part itself, as a view."""
        return image[self.top : self.top + self.height, self.left : self.left + self.width]


def whole(height: int, width: int) -> Box:
    """All of an image: made a square, its aspect ratio is lost."""
    return Box(0, 0, height, width)


def center(height: int, width: int) -> Box:
    """The largest square in the middle."""
    side = min(height, width)
    return Box((height - side) // 2, (width - side) // 2, side, side)


RESIZE: dict[str, Callable[[int, int], Box]] = {"center_crop": center, "squash": whole}


def random_resized_crop(
    height: int,
    width: int,
    *,
    scale: tuple[float, float],
    ratio: tuple[float, float],
    rng: np.random.Generator,
) -> Box:
    """A part of random area, aspect ratio and place (Szegedy et al. 2015, section 6).

    Where ten draws of the area and the ratio do not fit, the largest part in the middle whose
    ratio is allowed, as in torchvision.

    Args:
      height: of the image in pixels.
      width: of the image in pixels.
      scale: smallest and largest share of the area.
      ratio: smallest and largest width / height of the part, drawn log-uniformly.
      rng: the only source of randomness.
    """
    # Plain numbers: of small arrays, NumPy would take as long as a tenth of decoding.
    y, x, *draws = rng.random(2 + 2 * _TRIES).tolist()
    log_low, log_high = math.log(ratio[0]), math.log(ratio[1])
    for share, log_ratio in zip(draws[::2], draws[1::2], strict=True):
        area = height * width * (scale[0] + share * (scale[1] - scale[0]))
        aspect = math.exp(log_low + log_ratio * (log_high - log_low))
        h, w = round(math.sqrt(area / aspect)), round(math.sqrt(area * aspect))
        if 0 < h <= height and 0 < w <= width:
            return Box(int(y * (height - h + 1)), int(x * (width - w + 1)), h, w)
    h = min(height, max(1, round(width / ratio[0])))
    w = min(width, max(1, round(height * ratio[1])))
    return Box((height - h) // 2, (width - w) // 2, h, w)


def reduction(box: Box, size: int) -> int:
    """The largest factor of `REDUCTIONS`, or 1, that leaves a box at least the size of the result.

    Args:
      box: the part that is wanted.
      size: side of the square it becomes, in pixels.
    """
    short = min(box.height, box.width)
    return next((factor for factor in REDUCTIONS if short >= factor * size), 1)


def on_grid(box: Box, size: int) -> Box:
    """The box with edges where decoding at `reduction(box, size)` has pixels to cut between.

    It moves by less than a pixel of the result, and is the same for pictures that are not reduced,
    so that a crop does not depend on how an image is stored.

    Args:
      box: the part that is wanted.
      size: side of the square it becomes, in pixels.
    """
    n = reduction(box, size)
    return Box(*(edge // n * n for edge in (box.top, box.left, box.height, box.width)))
