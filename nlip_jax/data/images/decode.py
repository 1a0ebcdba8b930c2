"""Image files into RGB pixels, as a viewer would show them.

JPEG goes through libjpeg-turbo, which shrinks within the inverse DCT where a smaller image will
do; all else, and what libjpeg-turbo leaves, through Pillow. Formats are told by content.
"""

import io
import threading
import warnings
from collections.abc import Callable

import numpy as np
import simplejpeg
from PIL import Image, UnidentifiedImageError

from nlip_jax.data.failures import ReadError
from nlip_jax.data.images.crop import Box, reduction
from nlip_jax.data.images.header import Header, read_header
from nlip_jax.data.images.resize import resize
from nlip_jax.data.source import Picture

MAX_PIXELS = 64_000_000
_MOST_KEPT = 16 * 2**20  # bytes a thread keeps to decode into
_FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP")  # Pillow's other readers may run code
# Complaints of libjpeg after which the rest of the image is grey or nonsense; others do no harm.
_COMPLAINTS = {
    "Premature end of JPEG file": "truncated_image",
    "premature end of data segment": "damaged_image",
    "bad Huffman code": "damaged_image",
    "bad arithmetic code": "damaged_image",
    "instead of RST": "damaged_image",
    "Inconsistent progression sequence": "damaged_image",
}

# A line for every odd file of the web would drown the log; what matters is raised.
warnings.filterwarnings("ignore", module=r"PIL\.")


def decode(data: bytes, *, max_pixels: int = MAX_PIXELS) -> np.ndarray:
    """Decodes an image file.

    EXIF orientation is applied, transparency is composited on white, 16 bits become 8, of an
    animation comes the first frame.

    Args:
      data: the file: JPEG, PNG, WebP, GIF or BMP.
      max_pixels: larger images are refused by their header.

    Returns:
      `[h, w, 3]` uint8 RGB.

    Raises:
      ReadError: empty, no image, too large, truncated or damaged.
    """
    header = _accepted_header(data, max_pixels)
    image, _ = _decode(data, header, reduce=1)
    return np.ascontiguousarray(upright(image, header.orientation))


def to_pixels(picture: Picture, *, max_pixels: int = MAX_PIXELS) -> np.ndarray:
    """The pixels of a picture, `[h, w, 3]` uint8 RGB, decoded where it is a file.

    Raises:
      ReadError: as in `decode`.
    """
    return decode(picture, max_pixels=max_pixels) if isinstance(picture, bytes) else picture


def decode_square(
    data: bytes,
    size: int,
    *,
    choose: Callable[[int, int], Box],
    max_pixels: int = MAX_PIXELS,
) -> np.ndarray:
    """Decodes a part of an image file, no larger than needed, and resizes it to a square.

    Args:
      data: the file: JPEG, PNG, WebP, GIF or BMP.
      size: side of the square in pixels.
      choose: (height, width) of the upright image -> the part of it that is wanted.
      max_pixels: larger images are refused by their header.

    Returns:
      `[size, size, 3]` uint8 RGB.

    Raises:
      ReadError: as in `decode`.
    """
    header = _accepted_header(data, max_pixels)
    box = choose(*header.upright_size)
    image, reduced = _decode(data, header, reduce=reduction(box, size), memory=_MEMORY)
    part = _scaled(_as_stored(box, header), reduced).of(image)
    return np.array(upright(resize(part, size), header.orientation), order="C")


def upright(image: np.ndarray, orientation: int) -> np.ndarray:
    """Turns an image as EXIF says; a view.

    Args:
      image: `[h, w, 3]` as stored.
      orientation: 1 to 8 (EXIF 3.0, tag 0x0112).
    """
    transposed, rows, columns = _TURNS[orientation]
    return (image.transpose(1, 0, 2) if transposed else image)[::rows, ::columns]


# Orientation -> whether rows become columns, and then the steps along the rows and the columns.
_TURNS = {
    1: (False, 1, 1),
    2: (False, 1, -1),
    3: (False, -1, -1),
    4: (False, -1, 1),
    5: (True, 1, 1),
    6: (True, 1, -1),
    7: (True, -1, -1),
    8: (True, -1, 1),
}


def _as_stored(box: Box, header: Header) -> Box:
    """A box of the upright image, in the image before it is turned."""
    transposed, rows, columns = _TURNS[header.orientation]
    height, width = header.upright_size
    top = box.top if rows > 0 else height - box.top - box.height
    left = box.left if columns > 0 else width - box.left - box.width
    if transposed:
        return Box(left, top, box.width, box.height)
    return Box(top, left, box.height, box.width)


def _scaled(box: Box, factor: int) -> Box:
    """A box in an image that is smaller by a factor, with edges rounded to its pixels."""
    top, left, bottom, right = (
        (2 * edge + factor) // (2 * factor)
        for edge in (box.top, box.left, box.top + box.height, box.left + box.width)
    )
    return Box(top, left, bottom - top, right - left)


def _accepted_header(data: bytes, max_pixels: int) -> Header:
    header = read_header(data)
    if header.height * header.width > max_pixels:
        raise ReadError(
            "too_many_pixels",
            f"has {header.width} x {header.height} pixels, the limit is {max_pixels}",
        )
    return header


class _Memory(threading.local):
    """What a thread decodes into, again and again: fresh pages cost up to a third of decoding."""

    def __init__(self) -> None:
        self._bytes = np.empty(0, np.uint8)

    def of(self, size: int) -> np.ndarray | None:
        """At least that many bytes; None where they are too many to keep."""
        if size > _MOST_KEPT:
            return None
        if size > len(self._bytes):
            self._bytes = np.empty(size, np.uint8)
        return self._bytes


_MEMORY = _Memory()


def _decode(
    data: bytes, header: Header, *, reduce: int, memory: _Memory | None = None
) -> tuple[np.ndarray, int]:
    """The pixels as stored, and the factor by which they are fewer: `reduce`, or 1 if it cannot."""
    image = _decode_jpeg(data, header, reduce, memory) if header.format == "jpeg" else None
    return (_decode_with_pillow(data, header), 1) if image is None else (image, reduce)


def _decode_jpeg(
    data: bytes, header: Header, reduce: int, memory: _Memory | None
) -> np.ndarray | None:
    """None where Pillow has to look: rare ways of subsampling, complaints that do no harm."""
    height, width = -(-header.height // reduce), -(-header.width // reduce)
    buffer = memory.of(3 * height * width) if memory else None
    try:
        return simplejpeg.decode_jpeg(
            data, "RGB", min_height=height, min_width=width, buffer=buffer
        )
    except ValueError as error:
        for complaint, kind in _COMPLAINTS.items():
            if complaint in str(error):
                raise ReadError(kind, str(error)) from error
        return None


def _decode_with_pillow(data: bytes, header: Header) -> np.ndarray:
    try:
        image = Image.open(io.BytesIO(data), formats=_FORMATS)
        if image.size != (header.width, header.height):  # a GIF whose frame exceeds its screen
            raise ReadError("damaged_image", f"the header has not the {image.size} of the pixels")
        image.load()
        if image.mode.startswith("I"):  # 16 bits of grey, which Pillow would clip
            grey = np.clip(np.asarray(image, np.int64) >> 8, 0, 255)
            image = Image.fromarray(grey.astype(np.uint8))
        if image.has_transparency_data:
            image = image.convert("RGBA")
            image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
        return np.array(image.convert("RGB"))
    except ReadError:
        raise
    except Exception as error:  # decoders raise whatever a broken file leads them to
        whole = _HAS_END[header.format](data) and "truncated" not in str(error)
        unidentified = isinstance(error, UnidentifiedImageError)  # its message has an address
        message = "its header makes no sense" if unidentified else f"{error}"
        raise ReadError("damaged_image" if whole else "truncated_image", message) from error


# Whether what cannot be decoded has at least its end.
_HAS_END: dict[str, Callable[[bytes], bool]] = {
    "jpeg": lambda data: data.rfind(b"\xff\xd9") > data.rfind(b"\xff\xda") > 0,
    "png": lambda data: b"IEND" in data,
    "webp": lambda data: int.from_bytes(data[4:8], "little") + 8 <= len(data),
    "gif": lambda data: data.endswith(b";"),
    "bmp": lambda data: int.from_bytes(data[2:6], "little") <= len(data),
}
