"""Files as the web has them: each a picture or a failure of the right kind, and no word more."""

import random
import struct
import tracemalloc
import zlib

import numpy as np
import pytest
from PIL import Image
from tars import encode, pixels

from nlip_jax.data.failures import ReadError
from nlip_jax.data.images.decode import decode
from nlip_jax.data.images.transform import ImageTransform

IMAGE = pixels(3)
TRANSFORM = ImageTransform(size=16, crop_scale=(0.3, 1.0), flip=True)


def square(data):
    return TRANSFORM(data, example_id=0, epoch=0)


def png_header(w, h):
    body = b"IHDR" + struct.pack(">IIBBBBB", w, h, 8, 2, 0, 0, 0)
    chunk = struct.pack(">I", 13) + body + struct.pack(">I", zlib.crc32(body))
    return b"\x89PNG\r\n\x1a\n" + chunk + struct.pack(">I", 0) + b"IDAT" + bytes(4)


def without_middle(data):
    return data[: len(data) // 2] + data[-2:]


def in_wrong_place(data, marker, inserted):
    place = data.index(marker)
    return data[:place] + inserted + data[place:]


JPEG, LARGE_JPEG = encode(IMAGE), encode(pixels(1, 200, 300), quality=95)
PROGRESSIVE = encode(pixels(1, 200, 300), quality=95, progressive=True)
CMYK = encode(Image.fromarray(pixels(1, 200, 300)).convert("CMYK"), quality=95)

FAILURES = {
    "zero bytes": (b"", "empty_image"),
    "HTML under .jpg": (b"<!DOCTYPE html><html><body>404 Not Found", "not_an_image"),
    "JSON": (b'{"error": "expired"}', "not_an_image"),
    "SVG": (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "not_an_image"),
    "TIFF": (encode(IMAGE, "TIFF"), "not_an_image"),
    "AVIF": (b"\0\0\0\x20ftypavif" + bytes(100), "not_an_image"),
    "zeros": (bytes(5000), "not_an_image"),
    "50,000 x 50,000 by its header": (png_header(50_000, 50_000), "too_many_pixels"),
    "JPEG cut in its header": (JPEG[:150], "truncated_image"),
    "JPEG cut behind its header": (JPEG[: JPEG.index(b"\xff\xda") + 8], "truncated_image"),
    "JPEG cut in the middle": (LARGE_JPEG[: len(LARGE_JPEG) // 2], "truncated_image"),
    "JPEG without its end": (LARGE_JPEG[:-2], "truncated_image"),
    "progressive JPEG cut": (PROGRESSIVE[: len(PROGRESSIVE) // 2], "truncated_image"),
    "CMYK JPEG cut": (CMYK[: len(CMYK) // 2], "truncated_image"),
    "JPEG without its middle": (without_middle(LARGE_JPEG), "damaged_image"),
    "CMYK JPEG without its middle": (without_middle(CMYK), "damaged_image"),
    "PNG cut": (encode(IMAGE, "PNG")[:200], "truncated_image"),
    "PNG with wrong bytes": (encode(IMAGE, "PNG").replace(b"IDAT", b"IDAX"), "damaged_image"),
    "WebP cut": (encode(IMAGE, "WEBP")[:-20], "truncated_image"),
    "GIF cut": (encode(IMAGE, "GIF")[:900], "truncated_image"),
    "BMP cut": (encode(IMAGE, "BMP")[:900], "truncated_image"),
    "GIF larger than its screen": (
        encode(IMAGE, "GIF").replace(struct.pack("<HH", 32, 24), struct.pack("<HH", 1, 1), 1),
        "damaged_image",
    ),
}


@pytest.mark.parametrize("name", FAILURES)
@pytest.mark.parametrize("read", [decode, square])
def test_failures(name, read, capfd, recwarn):
    data, kind = FAILURES[name]
    with pytest.raises(ReadError) as raised:
        read(data)
    assert raised.value.kind == kind
    assert str(raised.value) and "\n" not in str(raised.value) and " at 0x" not in str(raised.value)
    assert capfd.readouterr() == ("", "") and not recwarn.list


PICTURES = {
    "wrong extension": (encode(IMAGE, "WEBP"), (24, 32)),
    "1 x 1": (encode(pixels(0, 1, 1), "PNG"), (1, 1)),
    "1 x 1 JPEG": (encode(pixels(0, 1, 1)), (1, 1)),
    "1 x 10,000": (encode(np.full((1, 10_000, 3), 90, np.uint8)), (1, 10_000)),
    "10,000 x 1": (encode(np.full((10_000, 1, 3), 90, np.uint8), "PNG"), (10_000, 1)),
    "CMYK": (CMYK, (200, 300)),
    "16 bits": (encode(np.full((24, 32), 40_000, np.uint16), "PNG"), (24, 32)),
    "1 bit": (encode(Image.new("1", (32, 24), 1), "PNG"), (24, 32)),
    "grey with alpha": (encode(Image.new("LA", (32, 24), (7, 9)), "PNG"), (24, 32)),
    "huge EXIF": (encode(IMAGE, exif=b"Exif\0\0" + bytes(65_000)), (24, 32)),
    "huge profile": (encode(IMAGE, icc_profile=bytes(500_000)), (24, 32)),
    "senseless EXIF": (encode(IMAGE, exif=b"Exif\0\0II*\0\xff\xff\xff\xff"), (24, 32)),
    "bytes behind the end": (JPEG + b"<html>" * 100, (24, 32)),
    "padding before the frame": (in_wrong_place(JPEG, b"\xff\xc0", b"\xff\xff\xff"), (24, 32)),
    "garbage before the frame": (in_wrong_place(JPEG, b"\xff\xc0", b"\x01\x02"), (24, 32)),
    "two pictures in one": (JPEG + encode(pixels(9)), (24, 32)),
    "PNG without its end": (encode(IMAGE, "PNG")[:-12], (24, 32)),
    "PNG with a large comment": (
        in_wrong_place(encode(IMAGE, "PNG"), b"\0\0\0\0IEND", b"\0\0\0\2tEXta\0" + bytes(4)),
        (24, 32),
    ),
}


@pytest.mark.parametrize("name", PICTURES)
def test_pictures(name, capfd, recwarn):
    data, size = PICTURES[name]
    assert decode(data).shape == (*size, 3)
    result = square(data)
    assert result.shape == (16, 16, 3) and result.dtype == np.uint8
    assert capfd.readouterr() == ("", "") and not recwarn.list


def test_what_does_no_harm_changes_nothing():
    for name in ("bytes behind the end", "padding before the frame", "garbage before the frame"):
        np.testing.assert_array_equal(decode(PICTURES[name][0]), decode(JPEG))
    np.testing.assert_array_equal(decode(PICTURES["PNG without its end"][0]), IMAGE)


def test_animations_show_their_first_frame():
    frames = [Image.fromarray(pixels(seed)).quantize(8).convert("RGB") for seed in (1, 2, 3)]
    for fmt in ("GIF", "WEBP"):
        data = encode(frames[0], fmt, save_all=True, append_images=frames[1:], lossless=True)
        np.testing.assert_array_equal(decode(data), np.asarray(frames[0]))


def test_headers_cost_nothing():
    tracemalloc.start()
    with pytest.raises(ReadError):
        square(png_header(50_000, 50_000))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 1_000_000


@pytest.mark.parametrize("fmt", ["JPEG", "PNG", "WEBP", "GIF", "BMP"])
def test_random_damage_gives_pictures_or_failures(fmt, capfd):
    """Whatever decoders raise is told in our words."""
    whole = encode(pixels(2, 40, 60), fmt)
    rng = random.Random(0)
    kinds = set()
    for _ in range(150):
        data = bytearray(whole)
        for _ in range(rng.randint(1, 5)):
            data[rng.randrange(min(len(data), rng.choice([40, 10**6])))] = rng.randrange(256)
        try:
            result = square(bytes(data[: rng.choice([10**6, rng.randrange(len(data))])]))
            assert result.shape == (16, 16, 3)
        except ReadError as error:
            kinds.add(error.kind)
    assert {"truncated_image", "damaged_image"} <= kinds
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("fmt", ["JPEG", "PNG", "WEBP", "GIF", "BMP"])
def test_cut_anywhere_gives_the_whole_picture_or_a_failure(fmt):
    whole = encode(pixels(2, 40, 60), fmt)
    expected = decode(whole)
    failures = 0
    for length in range(1, len(whole), 7):
        try:
            np.testing.assert_array_equal(decode(whole[:length]), expected)
        except ReadError as error:
            failures += error.kind == "truncated_image"
    assert failures >= 0.95 * (len(whole) // 7)
