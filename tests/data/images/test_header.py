"""Format, size and orientation from the first bytes."""

import struct
import zlib

import numpy as np
import pytest
from PIL import Image
from tars import encode, pixels

from nlip_jax.data.failures import ReadError
from nlip_jax.data.images.header import Header, image_size, read_header

IMAGE = pixels(3)  # 24 x 32
FILES = {
    "jpeg": encode(IMAGE),
    "png": encode(IMAGE, "PNG"),
    "webp": encode(IMAGE, "WEBP"),
    "webp lossless": encode(IMAGE, "WEBP", lossless=True),
    "webp extended": encode(np.dstack([IMAGE, IMAGE[..., :1]]), "WEBP"),
    "gif": encode(IMAGE, "GIF"),
    "bmp": encode(IMAGE, "BMP"),
}


def with_orientation(orientation):
    exif = Image.Exif()
    exif[0x010F], exif[0x0112] = "maker", orientation
    return exif


def kind_of(data):
    with pytest.raises(ReadError) as raised:
        read_header(data)
    return raised.value.kind


@pytest.mark.parametrize("name", FILES)
def test_formats(name):
    assert read_header(FILES[name]) == Header(name.split()[0], height=24, width=32)
    assert image_size(FILES[name]) == (24, 32)


def test_jpeg_variants():
    for options in ({"progressive": True}, {"subsampling": 0}, {"exif": b"Exif\0\0nonsense"}):
        assert read_header(encode(IMAGE, **options)) == Header("jpeg", 24, 32)
    large = encode(IMAGE, icc_profile=bytes(300_000))  # five segments before the frame
    assert read_header(large) == Header("jpeg", 24, 32)
    padded = FILES["jpeg"][:2] + b"\xff" * 5 + FILES["jpeg"][2:]
    assert read_header(padded) == Header("jpeg", 24, 32)


def test_webp_of_more_than_65536_pixels_a_side():
    chunk = struct.pack("<4sIIHBHB", b"VP8X", 10, 0, 0x2345, 0x01, 0x4321, 0x02)
    assert read_header(b"RIFF\x16\0\0\0WEBP" + chunk) == Header("webp", 0x24322, 0x12346)


def test_bmp_variants():
    old = b"BM" + bytes(12) + struct.pack("<IHHHH", 12, 32, 24, 1, 24)
    top_down = b"BM" + bytes(12) + struct.pack("<Iii", 40, 32, -24)
    assert read_header(old) == read_header(top_down) == Header("bmp", 24, 32)


@pytest.mark.parametrize("fmt", ["JPEG", "PNG", "WEBP"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientation(fmt, orientation):
    header = read_header(encode(IMAGE, fmt, exif=with_orientation(orientation)))
    assert header == Header(fmt.lower(), 24, 32, orientation)
    assert header.upright_size == ((32, 24) if orientation >= 5 else (24, 32))


def test_orientation_that_makes_no_sense():
    for orientation in (0, 9, 4000):
        assert read_header(encode(IMAGE, exif=with_orientation(orientation))).orientation == 1
    cut = with_orientation(6).tobytes()[:30]  # in mid-entry
    assert read_header(encode(IMAGE, exif=cut)).orientation == 1
    big_endian = struct.pack(">6s4sIHHHIHH", b"Exif\0\0", b"MM\0*", 8, 1, 0x0112, 3, 1, 8, 0)
    assert read_header(encode(IMAGE, exif=big_endian)).orientation == 8


@pytest.mark.parametrize(
    "data",
    [
        b"<!DOCTYPE html><html>",
        b"RIFF\x24\0\0\0WAVEfmt ",
        b"BMW is a maker of cars, and this is no bitmap",
        b"II*\0\x08\0\0\0",
        b"\0" * 100,
        b"a",
    ],
)
def test_no_image(data):
    assert kind_of(data) == "not_an_image"


def test_nothing():
    assert kind_of(b"") == "empty_image"


@pytest.mark.parametrize(
    ("name", "length"),
    [
        ("jpeg", FILES["jpeg"].index(b"\xff\xc0") + 9),
        ("png", 24),
        ("webp", 30),
        ("webp lossless", 25),
        ("webp extended", 30),
        ("gif", 10),
        ("bmp", 26),
    ],
)
def test_cut_off_headers(name, length):
    for less in range(1, length):
        assert kind_of(FILES[name][:less]) == "truncated_image"
    assert read_header(FILES[name][:length]).upright_size == (24, 32)


def test_headers_that_make_no_sense():
    assert kind_of(b"\x89PNG\r\n\x1a\n\0\0\0\x04CgBI" + bytes(20)) == "damaged_image"
    assert kind_of(png_header(0, 5)) == "damaged_image"
    assert kind_of(b"\xff\xd8\xff\xda\0\x08" + bytes(30)) == "damaged_image"
    assert kind_of(b"RIFF\x24\0\0\0WEBPALPH" + bytes(30)) == "damaged_image"


def png_header(w, h):
    body = b"IHDR" + struct.pack(">IIBBBBB", w, h, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + body + struct.pack(">I", zlib.crc32(body))
