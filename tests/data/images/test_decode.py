"""Image files of every kind into RGB, whole or the part that is wanted."""

import io

import numpy as np
import pytest
from PIL import Image
from tars import encode, pixels

from nlip_jax.data.failures import ReadError
from nlip_jax.data.images.crop import Box, whole
from nlip_jax.data.images.decode import decode, decode_square, to_pixels, upright

IMAGE = pixels(3)
LARGE = pixels(5, 300, 400)


def turned(orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    return exif


def square(data, box, size):
    return decode_square(data, size, choose=lambda h, w: box)


def by_pillow(data, box, size):
    """The same by decoding in full, cropping and resizing with Pillow."""
    image = Image.open(io.BytesIO(data)).convert("RGB")
    part = image.crop((box.left, box.top, box.left + box.width, box.top + box.height))
    return np.asarray(part.resize((size, size), Image.Resampling.BICUBIC))


def mean_difference(a, b):
    return np.abs(a.astype(int) - b).mean()


# --- whole images ---------------------------------------------------------------------------------


def test_jpeg_as_pillow_decodes_it():
    for options in ({}, {"progressive": True}, {"subsampling": 0}, {"restart_marker_rows": 1}):
        data = encode(LARGE, quality=90, **options)
        decoded = decode(data)
        assert decoded.dtype == np.uint8 and decoded.flags.writeable
        assert mean_difference(decoded, np.asarray(Image.open(io.BytesIO(data)))) < 0.1


@pytest.mark.parametrize("fmt", ["PNG", "BMP", "WEBP"])
def test_lossless_formats(fmt):
    np.testing.assert_array_equal(decode(encode(IMAGE, fmt, lossless=True)), IMAGE)


def test_to_pixels():
    np.testing.assert_array_equal(to_pixels(encode(IMAGE, "PNG")), IMAGE)
    assert to_pixels(IMAGE) is IMAGE


@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientation(orientation):
    expected = {1: IMAGE, 2: IMAGE[:, ::-1], 3: IMAGE[::-1, ::-1], 4: IMAGE[::-1]}
    other = IMAGE.transpose(1, 0, 2)
    expected |= {5: other, 6: other[:, ::-1], 7: other[::-1, ::-1], 8: other[::-1]}
    np.testing.assert_array_equal(upright(IMAGE, orientation), expected[orientation])
    for fmt in ("PNG", "WEBP"):
        data = encode(IMAGE, fmt, exif=turned(orientation), lossless=True)
        np.testing.assert_array_equal(decode(data), expected[orientation])
    decoded = decode(encode(IMAGE, exif=turned(orientation), quality=95))
    assert decoded.flags.c_contiguous and mean_difference(decoded, expected[orientation]) < 3


def test_grayscale_palette_and_bits():
    grey = np.asarray(Image.fromarray(IMAGE).convert("L"))
    three = np.repeat(grey[..., None], 3, 2)
    np.testing.assert_array_equal(decode(encode(grey, "PNG")), three)
    assert mean_difference(decode(encode(grey, quality=95)), three) < 2
    np.testing.assert_array_equal(decode(encode(grey.astype(np.uint16) * 257, "PNG")), three)
    palette = Image.fromarray(IMAGE).quantize(16)
    for fmt in ("PNG", "GIF", "BMP"):
        np.testing.assert_array_equal(
            decode(encode(palette, fmt)), np.asarray(palette.convert("RGB"))
        )
    assert decode(encode(Image.new("1", (5, 4), 1), "PNG")).tolist() == [[[255] * 3] * 5] * 4


def test_cmyk():
    cmyk = np.dstack([pixels(1, 48, 64), pixels(2, 48, 64)[..., 0] // 2])
    data = encode(Image.fromarray(cmyk, "CMYK"), quality=95)
    expected = np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))
    assert np.abs(decode(data).astype(int) - expected).max() <= 2
    marker = data.index(b"Adobe") + 11
    ycck = data[:marker] + b"\2" + data[marker + 1 :]
    expected = np.asarray(Image.open(io.BytesIO(ycck)).convert("RGB"))
    assert np.abs(decode(ycck).astype(int) - expected).max() <= 2


def test_transparency_is_white():
    alpha = np.zeros((24, 32, 1), np.uint8)
    alpha[:, 16:] = 255
    for fmt in ("PNG", "WEBP"):
        decoded = decode(encode(np.concatenate([IMAGE, alpha], 2), fmt, lossless=True))
        assert (decoded[:, :16] == 255).all()
        np.testing.assert_array_equal(decoded[:, 16:], IMAGE[:, 16:])
    palette = Image.new("P", (2, 1))
    palette.putpalette([10, 20, 30, 40, 50, 60])
    palette.putpixel((1, 0), 1)
    for fmt in ("PNG", "GIF"):
        decoded = decode(encode(palette, fmt, transparency=0))
        assert decoded.tolist() == [[[255, 255, 255], [40, 50, 60]]]


@pytest.mark.parametrize("fmt", ["GIF", "WEBP", "PNG"])
def test_of_an_animation_the_first_frame(fmt):
    frames = [Image.fromarray(pixels(seed)).quantize(8).convert("RGB") for seed in (1, 2)]
    data = encode(frames[0], fmt, save_all=True, append_images=frames[1:], lossless=True)
    np.testing.assert_array_equal(decode(data), np.asarray(frames[0]))


# --- parts ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("box", "size"),
    [
        (Box(0, 0, 300, 400), 30),  # reduced by 8
        (Box(16, 40, 256, 320), 60),  # by 4
        (Box(20, 14, 200, 260), 100),  # by 2
        (Box(13, 27, 150, 170), 100),
        (Box(13, 27, 50, 60), 100),
    ],
)
@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
def test_part_of_a_jpeg_as_pillow_makes_it(box, size, mode):
    data = encode(Image.fromarray(LARGE).convert(mode), quality=95)
    assert mean_difference(square(data, box, size), by_pillow(data, box, size)) < 1.5


@pytest.mark.parametrize("fmt", ["PNG", "WEBP", "BMP"])
def test_part_of_other_formats(fmt):
    data = encode(LARGE, fmt, lossless=True)
    box = Box(13, 27, 150, 170)
    assert mean_difference(square(data, box, 50), by_pillow(data, box, 50)) < 1.5


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("fmt", ["JPEG", "PNG"])
def test_part_of_a_turned_image(orientation, fmt):
    data = encode(LARGE, fmt, quality=95, exif=turned(orientation))
    straight = decode(data)
    for box, size in [(Box(16, 40, 248, 200), 60), (Box(13, 27, 150, 100), 100)]:
        expected = by_pillow(encode(straight, "PNG"), box, size)
        result = square(data, box, size)
        assert result.flags.c_contiguous and mean_difference(result, expected) < 1.5


def test_part_of_a_jpeg_that_is_left_to_pillow():
    data = encode(LARGE, quality=95, exif=turned(3))
    frame = data.index(b"\xff\xc0")
    odd = data[:frame] + b"\1\2" + data[frame:]
    for box, size in [(Box(16, 40, 248, 200), 60), (Box(13, 27, 150, 100), 100)]:
        assert mean_difference(square(odd, box, size), square(data, box, size)) < 1.5


def test_choose_is_asked_with_the_upright_size():
    sizes = []
    data = encode(IMAGE, exif=turned(6))
    decode_square(data, 8, choose=lambda h, w: sizes.append((h, w)) or whole(h, w))
    assert sizes == [(32, 24)]


def test_a_part_of_the_right_size_is_not_resampled():
    data = encode(LARGE, quality=95)
    expected = decode(data)[20:84, 31:95]
    np.testing.assert_array_equal(square(data, Box(20, 31, 64, 64), 64), expected)


def test_results_are_not_overwritten_by_the_next_image():
    data = [encode(pixels(seed, 32, 32)) for seed in range(3)]
    for decoded in (
        [decode(file) for file in data],
        [decode_square(file, 32, choose=whole) for file in data],
        [decode_square(file, 16, choose=whole) for file in data],
    ):
        for seed, result in enumerate(decoded):
            fresh = decode_square(data[seed], len(result), choose=whole)
            np.testing.assert_array_equal(result, fresh)


def test_large_images_are_refused_by_their_header():
    for read in (decode, lambda data, **options: decode_square(data, 8, choose=whole, **options)):
        with pytest.raises(ReadError, match="32 x 24 pixels, the limit is 700") as raised:
            read(encode(IMAGE), max_pixels=700)
        assert raised.value.kind == "too_many_pixels"
        assert read(encode(IMAGE), max_pixels=768).dtype == np.uint8
