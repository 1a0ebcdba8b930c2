"""Image files of every kind into RGB, and RGB into squares."""

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image
from tars import encode, pixels

from nlip_jax.data.decode import (
    ReadError,
    decode_image,
    random_resized_crop,
    resize_center_crop,
    squash,
)

IMAGE = pixels(3)


def test_jpeg_is_the_same_on_both_ways():
    data = encode(IMAGE, quality=90)
    exif = encode(IMAGE, quality=90, exif=Image.Exif())
    assert b"Exif" in exif[:100]
    fast = decode_image(data)
    assert fast.dtype == np.uint8 and fast.flags.writeable
    np.testing.assert_array_equal(fast, np.asarray(Image.open(io.BytesIO(data))))
    np.testing.assert_array_equal(fast, decode_image(exif))


@pytest.mark.parametrize("fmt", ["PNG", "BMP", "WEBP"])
def test_lossless_formats(fmt):
    np.testing.assert_array_equal(decode_image(encode(IMAGE, fmt, lossless=True)), IMAGE)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation(orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    upright = {1: IMAGE, 2: IMAGE[:, ::-1], 3: IMAGE[::-1, ::-1], 4: IMAGE[::-1]}
    turned = IMAGE.transpose(1, 0, 2)
    upright |= {5: turned, 6: turned[:, ::-1], 7: turned[::-1, ::-1], 8: turned[::-1]}
    decoded = decode_image(encode(IMAGE, "PNG", exif=exif))
    np.testing.assert_array_equal(decoded, upright[orientation])
    assert decode_image(encode(IMAGE, exif=exif)).shape == upright[orientation].shape


def test_modes():
    grey = np.asarray(Image.fromarray(IMAGE).convert("L"))
    for fmt in ("PNG", "JPEG"):
        decoded = decode_image(encode(grey, fmt))
        assert decoded.shape == (24, 32, 3)
        assert np.abs(decoded.astype(int) - grey[..., None]).max() < 12
    np.testing.assert_array_equal(
        decode_image(encode(grey.astype(np.uint16) * 257, "PNG")), np.repeat(grey[..., None], 3, 2)
    )
    palette = Image.fromarray(IMAGE).quantize(16)
    np.testing.assert_array_equal(
        decode_image(encode(palette, "PNG")), np.asarray(palette.convert("RGB"))
    )
    cmyk = decode_image(encode(Image.fromarray(IMAGE).convert("CMYK"), quality=95))
    assert np.abs(cmyk.astype(int) - IMAGE).mean() < 8
    assert decode_image(encode(Image.new("1", (5, 4), 1), "PNG")).tolist() == [[[255] * 3] * 5] * 4


def test_transparency_is_white():
    alpha = np.zeros((24, 32, 1), np.uint8)
    alpha[:, 16:] = 255
    for fmt in ("PNG", "WEBP"):
        decoded = decode_image(encode(np.concatenate([IMAGE, alpha], 2), fmt, lossless=True))
        assert (decoded[:, :16] == 255).all()
        np.testing.assert_array_equal(decoded[:, 16:], IMAGE[:, 16:])
    palette = Image.new("P", (2, 1))
    palette.putpalette([10, 20, 30, 40, 50, 60])
    palette.putpixel((1, 0), 1)
    decoded = decode_image(encode(palette, "PNG", transparency=0))
    assert decoded.tolist() == [[[255, 255, 255], [40, 50, 60]]]


def png_header(w, h):
    body = b"IHDR" + struct.pack(">IIBBBBB", w, h, 8, 2, 0, 0, 0)
    chunk = struct.pack(">I", 13) + body + struct.pack(">I", zlib.crc32(body))
    return b"\x89PNG\r\n\x1a\n" + chunk + struct.pack(">I", 0) + b"IDAT" + bytes(4)


def test_size_is_checked_before_decoding():
    with pytest.raises(ReadError, match="9000 x 9000 pixels, the limit is 64000000"):
        decode_image(png_header(9000, 9000))
    with pytest.raises(ReadError, match="32 x 24 pixels, the limit is 700"):
        decode_image(encode(IMAGE), max_pixels=700)


@pytest.mark.parametrize(
    "data", [b"", b"<html>", encode(IMAGE)[:200], encode(IMAGE, "PNG")[:90], b"\xff\xd8\xff\xe0"]
)
def test_broken_files(data):
    with pytest.raises(ReadError, match=r"cannot be decoded|is no file of"):
        decode_image(data)


@pytest.mark.parametrize("resize", [resize_center_crop, squash])
def test_resize(resize):
    square = pixels(0, 40, 40)
    assert np.shares_memory(resize(square, 40), square)
    np.testing.assert_array_equal(resize(square, 40), square)
    for h, w in [(40, 40), (100, 60), (3, 200), (1, 1)]:
        image = pixels(1, h, w)
        result = resize(image, 16)
        assert result.shape == (16, 16, 3) and result.dtype == np.uint8
        np.testing.assert_array_equal(result, resize(image, 16))


def test_center_crop_sees_the_middle_only():
    image = np.zeros((30, 90, 3), np.uint8)
    image[:, 30:60] = 200
    assert (resize_center_crop(image, 10) == 200).all()
    assert squash(image, 30)[15, [5, 15, 25], 0].tolist() == [0, 200, 0]


def test_shrinking_is_antialiased():
    stripes = np.zeros((256, 256, 3), np.uint8)
    stripes[:, ::2] = 255
    small = resize_center_crop(stripes, 16).astype(int)
    assert np.abs(small - 127).max() < 20


def crop(image, seed, **options):
    options = {"scale": (0.3, 1.0), "rng": np.random.default_rng(seed), **options}
    return random_resized_crop(image, 16, **options)


def test_random_crop():
    image = pixels(0, 60, 80)
    np.testing.assert_array_equal(crop(image, 1), crop(image, 1))
    results = {crop(image, seed).tobytes() for seed in range(20)}
    assert len(results) == 20
    for h, w in [(60, 80), (2, 300), (300, 2), (1, 1)]:
        assert crop(pixels(1, h, w), 0).shape == (16, 16, 3)


def test_random_crop_keeps_its_share_of_the_area():
    y, x = np.mgrid[:200, :200].astype(np.uint8)
    image = np.stack([y, x, x], 2)
    areas = []
    for seed in range(200):
        spans = np.ptp(crop(image, seed, scale=(0.25, 0.5)).reshape(-1, 3).astype(int), 0)
        areas.append(spans[0] * spans[1] * (16 / 15) ** 2 / 200**2)
    assert 0.2 < min(areas) < 0.3 and 0.43 < max(areas) < 0.55


def test_flip():
    image = pixels(0, 16, 16)
    whole = {"scale": (1.0, 1.0), "ratio": (1.0, 1.0)}
    np.testing.assert_array_equal(crop(image, 0, **whole), image)
    flipped = [
        np.array_equal(crop(image, seed, flip=True, **whole), image[:, ::-1]) for seed in range(100)
    ]
    assert 30 < sum(flipped) < 70
