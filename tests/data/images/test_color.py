"""Colour operations against slow and obvious ones."""

import colorsys

import numpy as np
import pytest
from PIL import Image, ImageEnhance, ImageOps
from tars import pixels

from nlip_jax.data.images import color

IMAGE = pixels(3, 40, 50)
FACTORS = (0.0, 0.1, 0.7, 1.0, 1.36, 1.9)


def rounded(values):
    return np.clip(np.rint(values), 0, 255).astype(np.uint8)


def luma(image):
    return image @ np.array([0.299, 0.587, 0.114])


def close(a, b, tolerance):
    assert a.shape == b.shape and a.dtype == np.uint8
    assert np.abs(a.astype(int) - b).max() <= tolerance


@pytest.mark.parametrize("factor", FACTORS)
def test_brightness(factor):
    close(color.brightness(IMAGE, factor), rounded(IMAGE * factor), 0)


@pytest.mark.parametrize("factor", FACTORS)
def test_contrast(factor):
    mean = round(luma(IMAGE).mean())
    close(color.contrast(IMAGE, factor), rounded(mean + (IMAGE.astype(float) - mean) * factor), 1)


@pytest.mark.parametrize("factor", FACTORS)
def test_saturation(factor):
    grey = luma(IMAGE)[..., None]
    close(color.saturation(IMAGE, factor), rounded(grey + (IMAGE - grey) * factor), 1)


@pytest.mark.parametrize("factor", FACTORS)
def test_sharpness(factor):
    expected = ImageEnhance.Sharpness(Image.fromarray(IMAGE)).enhance(factor)
    close(color.sharpness(IMAGE, factor), np.asarray(expected), 2)


@pytest.mark.parametrize("shift", [-0.5, -0.1, 0.0, 0.25, 0.4])
def test_hue(shift):
    def shifted(pixel):
        h, s, v = colorsys.rgb_to_hsv(*pixel / 255)
        return colorsys.hsv_to_rgb((h + shift) % 1, s, v)

    expected = rounded(np.apply_along_axis(shifted, 2, IMAGE) * 255)
    close(color.hue(IMAGE, shift), expected, 8)  # the hue has 256 steps
    assert np.abs(color.hue(IMAGE, shift).astype(int) - expected).mean() < 1.5


def test_grayscale():
    close(color.grayscale(IMAGE), rounded(np.repeat(luma(IMAGE)[..., None], 3, 2)), 1)


@pytest.mark.parametrize("sigma", [0.1, 0.5, 1.0, 2.0])
def test_gaussian_blur(sigma):
    reach = 10
    taps = np.exp(-(np.arange(-reach, reach + 1.0) ** 2) / (2 * sigma**2))
    taps /= taps.sum()
    blurred = np.pad(IMAGE.astype(float), ((reach, reach), (reach, reach), (0, 0)), "reflect")
    for axis in (0, 1):
        blurred = np.apply_along_axis(np.convolve, axis, blurred, taps, "valid")
    close(color.gaussian_blur(IMAGE, sigma), rounded(blurred), 2)


def test_invert_solarize_posterize():
    close(color.invert(IMAGE), 255 - IMAGE, 0)
    for threshold in (0, 100, 200, 256):
        expected = ImageOps.solarize(Image.fromarray(IMAGE), threshold)
        close(color.solarize(IMAGE, threshold), np.asarray(expected), 0)
    for bits in (4, 6, 8):
        expected = ImageOps.posterize(Image.fromarray(IMAGE), bits)
        close(color.posterize(IMAGE, bits), np.asarray(expected), 0)


FLAT = np.dstack([IMAGE[..., 0] // 4 + 30, np.full((40, 50), 7, np.uint8), IMAGE[..., 2]])


@pytest.mark.parametrize("image", [IMAGE, FLAT, FLAT[:1, :1], FLAT[:2, :3]])
def test_autocontrast_and_equalize(image):
    expected = np.asarray(ImageOps.autocontrast(Image.fromarray(image)))
    close(color.auto_contrast(image), expected, 1)
    close(color.equalize(image), np.asarray(ImageOps.equalize(Image.fromarray(image))), 0)


def test_jitter_draws_from_the_ranges():
    def levels(amounts, image):
        drawn = (color.color_jitter(image, amounts, np.random.default_rng(i)) for i in range(300))
        return np.array([image.astype(float).mean((0, 1)) for image in drawn])

    flat = np.full((4, 4, 3), 100, np.uint8)
    brightness = levels((0.4, 0, 0, 0), flat)[:, 0]
    assert 59 <= brightness.min() < 63 and 137 < brightness.max() <= 140
    assert 95 < brightness.mean() < 105
    assert (levels((0, 0.4, 0, 0), flat) == 100).all()  # the mean stays
    assert (levels((0, 0, 0.4, 0.5), flat) == 100).all()  # grey has no colour
    red = np.full((4, 4, 3), (200, 0, 0), np.uint8)
    assert levels((0, 0, 0, 0.1), red)[:, 2].max() > 110  # towards magenta
    assert levels((0, 0, 0, 0.1), red)[:, 0].min() == 200  # never as far as green
    assert levels((2, 0, 0, 0), flat).min() < 3 and levels((2, 0, 0, 0), flat).max() == 255


def test_jitter_changes_in_random_order():
    results = {
        color.color_jitter(IMAGE, (0.001, 1, 0, 0), np.random.default_rng(seed)).tobytes()
        for seed in range(30)
    }
    assert len(results) == 30
    amounts = (0.4, 0.4, 0.4, 0.1)
    again = [color.color_jitter(IMAGE, amounts, np.random.default_rng(5)) for _ in range(2)]
    np.testing.assert_array_equal(*again)
    kept = IMAGE.copy()
    color.color_jitter(IMAGE, amounts, np.random.default_rng(5))
    np.testing.assert_array_equal(IMAGE, kept)
