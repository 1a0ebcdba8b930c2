"""Image files into RGB pixels, and pixels into squares."""

import io
import math

import numpy as np
import simplejpeg
from PIL import Image, ImageOps, UnidentifiedImageError

from nlip_jax.errors import RunError

MAX_PIXELS = 64_000_000
_FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP")  # whatever their extension; others may run code
_REDUCING_GAP = 3.0  # shrink by whole factors first; from 3 on the result is as good as without


class ReadError(RunError):
    """An image or a caption that cannot be read."""


def decode_image(data: bytes, max_pixels: int = MAX_PIXELS) -> np.ndarray:
    """Decodes an image file as a viewer would show it.

    EXIF orientation is applied, transparency is composited on white, 16 bits become 8.

    Args:
      data: the file: JPEG, PNG, WebP, GIF (its first frame) or BMP.
      max_pixels: larger images are refused before they are decoded.

    Returns:
      `[h, w, 3]` uint8 RGB.

    Raises:
      ReadError: the file cannot be decoded, or is too large.
    """
    try:
        image = _decode_plain_jpeg(data, max_pixels)
        return _decode_any(data, max_pixels) if image is None else image
    except ReadError:
        raise
    except UnidentifiedImageError as error:
        raise ReadError(f"is no file of {', '.join(_FORMATS)}") from error
    except Exception as error:  # decoders raise whatever a broken file leads them to
        raise ReadError(f"cannot be decoded ({type(error).__name__}: {error})") from error


def resize_center_crop(image: np.ndarray, size: int) -> np.ndarray:
    """Resizes the largest square in the middle of an image.

    Args:
      image: `[h, w, 3]` uint8.
      size: side of the result in pixels.

    Returns:
      `[size, size, 3]` uint8; a view of the image where it is that size already.
    """
    h, w = image.shape[:2]
    side = min(h, w)
    x, y = (w - side) // 2, (h - side) // 2
    return _resize(image[y : y + side, x : x + side], size)


def squash(image: np.ndarray, size: int) -> np.ndarray:
    """Resizes a whole image to a square; the aspect ratio is lost.

    Args:
      image: `[h, w, 3]` uint8.
      size: side of the result in pixels.

    Returns:
      `[size, size, 3]` uint8; a view of the image where it is that size already.
    """
    return _resize(image, size)


def random_resized_crop(
    image: np.ndarray,
    size: int,
    *,
    scale: tuple[float, float],
    ratio: tuple[float, float] = (3 / 4, 4 / 3),
    flip: bool = False,
    rng: np.random.Generator,
) -> np.ndarray:
    """Resizes a random part of an image (Szegedy et al. 2015, section 6).

    Args:
      image: `[h, w, 3]` uint8.
      size: side of the result in pixels.
      scale: smallest and largest share of the area.
      ratio: smallest and largest width / height of the part, drawn log-uniformly.
      flip: mirror every second result, at random.
      rng: the only source of randomness.

    Returns:
      `[size, size, 3]` uint8.
    """
    rows, columns = _random_part(*image.shape[:2], scale, ratio, rng)
    result = _resize(image[rows, columns], size)
    if flip and rng.random() < 0.5:
        result = np.ascontiguousarray(result[:, ::-1])
    return result


def _decode_plain_jpeg(data: bytes, max_pixels: int) -> np.ndarray | None:
    """The fast way, for JPEG without EXIF; None where Pillow has to look."""
    if not data.startswith(b"\xff\xd8\xff") or data.find(b"Exif\0\0", 0, 65536) >= 0:
        return None
    try:
        h, w, colorspace, _ = simplejpeg.decode_jpeg_header(data)
        if colorspace not in ("YCbCr", "RGB", "Gray"):
            return None
        _check_size(h, w, max_pixels)
        return simplejpeg.decode_jpeg(data, "RGB")
    except ValueError:  # damage, which Pillow may know how to pass over
        return None


def _decode_any(data: bytes, max_pixels: int) -> np.ndarray:
    image = Image.open(io.BytesIO(data), formats=_FORMATS)
    _check_size(image.height, image.width, max_pixels)
    image = ImageOps.exif_transpose(image)
    if image.mode.startswith("I"):  # 16 bits of grey, which Pillow would clip
        grey = np.clip(np.asarray(image, np.int64) >> 8, 0, 255)
        image = Image.fromarray(grey.astype(np.uint8))
    if image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return np.array(image.convert("RGB"))


def _check_size(h: int, w: int, max_pixels: int) -> None:
    if h * w > max_pixels:
        raise ReadError(f"has {w} x {h} pixels, the limit is {max_pixels}")


def _resize(image: np.ndarray, size: int) -> np.ndarray:
    """A whole image as a square, antialiased."""
    if image.shape[:2] == (size, size):
        return image
    resized = Image.fromarray(image).resize(
        (size, size), Image.Resampling.BICUBIC, reducing_gap=_REDUCING_GAP
    )
    return np.array(resized)


def _random_part(
    h: int,
    w: int,
    scale: tuple[float, float],
    ratio: tuple[float, float],
    rng: np.random.Generator,
) -> tuple[slice, slice]:
    """Rows and columns of a part; the largest allowed in the middle if ten draws do not fit."""
    for _ in range(10):
        area = h * w * rng.uniform(*scale)
        aspect = math.exp(rng.uniform(*np.log(ratio)))
        part_h, part_w = round(math.sqrt(area / aspect)), round(math.sqrt(area * aspect))
        if 0 < part_h <= h and 0 < part_w <= w:
            y, x = int(rng.integers(h - part_h + 1)), int(rng.integers(w - part_w + 1))
            return slice(y, y + part_h), slice(x, x + part_w)
    part_h, part_w = min(h, max(1, round(w / ratio[0]))), min(w, max(1, round(h * ratio[1])))
    y, x = (h - part_h) // 2, (w - part_w) // 2
    return slice(y, y + part_h), slice(x, x + part_w)
