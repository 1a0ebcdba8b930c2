"""What the first bytes of an image file say, without decoding: format, size and orientation."""

import dataclasses
import struct
from collections.abc import Callable

from nlip_jax.data.failures import ReadError

_EXIF = b"Exif\0\0"
_BYTE_ORDERS = {b"II*\0": "<", b"MM\0*": ">"}
_ORIENTATION = 0x0112
_JPEG_WITHOUT_LENGTH = {0x01, *range(0xD0, 0xD9)}  # TEM, RST0 to RST7, SOI
_JPEG_FRAMES = {*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC}  # SOF; not DHT, JPG, DAC
_JPEG_SCAN, _JPEG_END, _JPEG_EXIF = 0xDA, 0xD9, 0xE1
_BMP_HEADERS = {12, 40, 52, 56, 64, 108, 124}  # bytes; each version has its own length


@dataclasses.dataclass(frozen=True)
class Header:
    """Of an image file.

    Attributes:
      format: jpeg | png | webp | gif | bmp.
      height: in pixels, as stored.
      width: in pixels, as stored.
      orientation: 1 to 8, as in EXIF: how the stored pixels have to be turned.
    """

    format: str
    height: int
    width: int
    orientation: int = 1

    @property
    def upright_size(self) -> tuple[int, int]:
        """Height and width as the image is shown."""
        turned = self.orientation >= 5
        return (self.width, self.height) if turned else (self.height, self.width)


def image_size(data: bytes) -> tuple[int, int]:
    """Height and width as the image is shown, in pixels, by its header alone.

    Args:
      data: the file, or as much of its beginning as holds the header.

    Raises:
      ReadError: as in `read_header`.
    """
    return read_header(data).upright_size


def read_header(data: bytes) -> Header:
    """Reads what stands before the pixels; the format is told by content, not by name.

    Args:
      data: a file.

    Raises:
      ReadError: no bytes, no image of a format known here, or an incomplete or senseless header.
    """
    if not data:
        raise ReadError("empty_image", "0 bytes")
    for magic, read in _READERS:
        if data.startswith(magic) or magic.startswith(data):
            try:
                header = read(data)
            except (struct.error, IndexError, ValueError) as error:
                message = f"ends within its header, after {len(data)} bytes"
                raise ReadError("truncated_image", message) from error
            if header.height < 1 or header.width < 1:
                raise ReadError("damaged_image", f"has {header.width} x {header.height} pixels")
            return header
    raise _unknown(data)


def _unknown(data: bytes) -> ReadError:
    return ReadError("not_an_image", f"is no JPEG, PNG, WebP, GIF or BMP: begins {data[:12]!r}")


def _read_jpeg(data: bytes) -> Header:
    """Walks over the segments to the frame header (ITU T.81, annex B)."""
    orientation, position = None, 2
    while True:
        position = data.index(b"\xff", position)  # skips what does not belong there, as decoders do
        while data[position] == 0xFF:
            position += 1
        marker = data[position]
        position += 1
        if marker in _JPEG_WITHOUT_LENGTH:
            continue
        if marker in (_JPEG_SCAN, _JPEG_END):
            raise ReadError("damaged_image", "a JPEG without frame header")
        (length,) = struct.unpack_from(">H", data, position)
        if marker in _JPEG_FRAMES:
            height, width = struct.unpack_from(">HH", data, position + 3)
            return Header("jpeg", height, width, orientation or 1)
        if marker == _JPEG_EXIF and orientation is None and data.startswith(_EXIF, position + 2):
            orientation = _orientation(data[position + 2 + len(_EXIF) : position + length])
        position += length


def _read_png(data: bytes) -> Header:
    if data[12:16] != b"IHDR":
        if len(data) < 16:
            raise IndexError
        raise ReadError("damaged_image", "a PNG without IHDR")
    width, height = struct.unpack_from(">II", data, 16)
    orientation, position = 1, 8
    while position + 8 <= len(data):  # eXIf may stand behind the pixels
        length, name = struct.unpack_from(">I4s", data, position)
        if name == b"eXIf":
            orientation = _orientation(data[position + 8 : position + 8 + length])
        position += length + 12
    return Header("png", height, width, orientation)


def _read_webp(data: bytes) -> Header:
    if not b"WEBP".startswith(data[8:12]):
        raise _unknown(data)
    kind = data[12:16]
    if kind == b"VP8X":
        low_w, high_w, low_h, high_h = struct.unpack_from("<HBHB", data, 24)
        height, width = (high_h << 16 | low_h) + 1, (high_w << 16 | low_w) + 1
        return Header("webp", height, width, _webp_orientation(data))
    if kind == b"VP8L":
        (bits,) = struct.unpack_from("<I", data, 21)
        return Header("webp", (bits >> 14 & 0x3FFF) + 1, (bits & 0x3FFF) + 1)
    if kind == b"VP8 ":
        width, height = struct.unpack_from("<HH", data, 26)
        return Header("webp", height & 0x3FFF, width & 0x3FFF)
    if len(data) < 16:
        raise IndexError
    raise ReadError("damaged_image", f"a WebP that begins with {kind!r}")


def _webp_orientation(data: bytes) -> int:
    position = 12
    while position + 8 <= len(data):
        name, length = struct.unpack_from("<4sI", data, position)
        if name == b"EXIF":
            return _orientation(data[position + 8 : position + 8 + length].removeprefix(_EXIF))
        position += 8 + length + length % 2
    return 1


def _read_gif(data: bytes) -> Header:
    width, height = struct.unpack_from("<HH", data, 6)
    return Header("gif", height, width)


def _read_bmp(data: bytes) -> Header:
    (length,) = struct.unpack_from("<I", data, 14)
    if length not in _BMP_HEADERS:  # any text may begin with BM
        raise _unknown(data)
    width, height = struct.unpack_from("<HH" if length == 12 else "<ii", data, 18)
    return Header("bmp", abs(height), width)  # top-down where negative


def _orientation(tiff: bytes) -> int:
    """Of an EXIF block; upright where it says nothing or nonsense (EXIF 3.0, section 4)."""
    order = _BYTE_ORDERS.get(tiff[:4])
    if order is None:
        return 1
    try:
        (start,) = struct.unpack_from(f"{order}I", tiff, 4)
        (entries,) = struct.unpack_from(f"{order}H", tiff, start)
        for entry in range(entries):
            tag, _, _, value = struct.unpack_from(f"{order}HHIH", tiff, start + 2 + 12 * entry)
            if tag == _ORIENTATION:
                return value if 1 <= value <= 8 else 1
    except struct.error:
        pass
    return 1


_READERS: tuple[tuple[bytes, Callable[[bytes], Header]], ...] = (
    (b"\xff\xd8\xff", _read_jpeg),
    (b"\x89PNG\r\n\x1a\n", _read_png),
    (b"RIFF", _read_webp),
    (b"GIF87a", _read_gif),
    (b"GIF89a", _read_gif),
    (b"BM", _read_bmp),
)
