"""How near our fast crops are to those of Pillow, so that speed is not bought with aliasing."""

import io
from collections.abc import Iterable

import numpy as np
from PIL import Image

from nlip_jax.commands.benchmarks.data_shards import Shards
from nlip_jax.commands.benchmarks.data_speed import SCALES
from nlip_jax.data.images.crop import Box, on_grid, random_resized_crop
from nlip_jax.data.images.decode import decode_square

_RATIO = (3 / 4, 4 / 3)


def psnr(
    shards: Shards,
    *,
    size: int = 224,
    count: int = 100,
    scales: Iterable[tuple[float, float]] = SCALES,
) -> dict[str, float]:
    """Peak signal to noise ratio of random crops, of which Pillow's are the signal.

    Pillow decodes the whole image, cuts the same part out of it and resizes it with its antialiased
    bicubic filter. To compare: the same filter without antialiasing.

    Args:
      shards: the images; their first `count` distinct ones are looked at.
      size: of the crops, in pixels.
      count: number of crops.
      scales: smallest and largest share of the area that a crop takes.

    Returns:
      data/scale_S/psnr_db and data/scale_S/psnr_without_antialiasing_db, means over the crops.
    """
    numbers = {}
    for scale in scales:
        rng = np.random.default_rng(0)
        pairs = [_compare(data, size, scale, rng) for data in shards.images[:count]]
        ours, aliased = np.mean(pairs, axis=0).tolist()
        numbers[f"data/scale_{scale[0]:g}/psnr_db"] = ours
        numbers[f"data/scale_{scale[0]:g}/psnr_without_antialiasing_db"] = aliased
    return numbers


def _compare(
    data: bytes, size: int, scale: tuple[float, float], rng: np.random.Generator
) -> tuple[float, float]:
    """Of one crop: ours, and Pillow's without antialiasing."""
    image = Image.open(io.BytesIO(data)).convert("RGB")
    drawn = random_resized_crop(image.height, image.width, scale=scale, ratio=_RATIO, rng=rng)
    box = on_grid(drawn, size)
    corners = (box.left, box.top, box.left + box.width, box.top + box.height)
    square, bicubic = (size, size), Image.Resampling.BICUBIC
    expected = np.asarray(image.crop(corners).resize(square, bicubic))
    aliased = np.asarray(image.transform(square, Image.Transform.EXTENT, corners, bicubic))

    def choose(height: int, width: int) -> Box:
        del height, width
        return box

    ours = decode_square(data, size, choose=choose)
    return _psnr(ours, expected), _psnr(aliased, expected)


def _psnr(image: np.ndarray, expected: np.ndarray) -> float:
    """In dB, of 8-bit pixels."""
    error = np.mean(np.square(image.astype(np.float64) - expected))
    return float(10 * np.log10(255**2 / error)) if error else np.inf
