"""Resizing against Pillow, which takes its time."""

import numpy as np
import pytest
from PIL import Image
from tars import pixels

from nlip_jax.data.images.resize import resize


def psnr(a, b):
    """Peak signal-to-noise ratio in decibels."""
    return 10 * np.log10(255**2 / max(1e-9, np.mean((a.astype(float) - b) ** 2)))


def detailed(seed, h, w):
    """Noise that is weaker the finer it is, as in photographs."""
    rng = np.random.default_rng(seed)
    total = np.zeros((h, w, 3))
    for cells in (2, 4, 8, 16, 32, 64, 128):
        noise = rng.normal(size=(min(h, cells), min(w, cells), 3))
        grown = [
            Image.fromarray(noise[..., c].astype(np.float32)).resize((w, h), Image.BICUBIC)
            for c in range(3)
        ]
        total += np.stack(grown, 2) * 25
    return np.clip(total + 128, 0, 255).astype(np.uint8)


@pytest.mark.parametrize(
    ("h", "w", "size"),
    [
        (300, 400, 224),
        (300, 230, 224),
        (120, 90, 224),
        (64, 64, 63),
        (129, 129, 128),
        (200, 200, 50),
        (200, 201, 50),
        (300, 400, 16),
        (3, 300, 16),
        (300, 5, 16),
        (1, 7, 4),
    ],
)
def test_is_what_pillow_does(h, w, size):
    image = detailed(h, h, w)
    expected = Image.fromarray(image).resize((size, size), Image.Resampling.BICUBIC)
    result = resize(image, size)
    assert result.shape == (size, size, 3) and result.dtype == np.uint8
    assert psnr(result, np.asarray(expected)) > 37


def test_stripes_finer_than_the_result_become_grey():
    stripes = np.zeros((256, 256, 3), np.uint8)
    stripes[:, ::2] = 255
    for size in (16, 64, 100, 127):
        result = resize(stripes, size).astype(int)
        assert np.abs(result - 127)[:, 3:-3].max() < 15
        assert np.abs(result - 127).max() < 60  # at an edge, stripes are seen from one side


def test_same_size_is_the_image_itself():
    image = pixels(0, 40, 40)
    assert resize(image, 40) is image


def test_a_single_color_stays():
    for h, w in [(1, 1), (1, 500), (77, 33), (600, 2)]:
        image = np.full((h, w, 3), (3, 140, 255), np.uint8)
        assert (resize(image, 24) == (3, 140, 255)).all()


def test_read_only_parts_of_images():
    image = pixels(0, 60, 80)
    part = image[7:47, 11:71]
    expected = resize(np.ascontiguousarray(part), 20)
    image.flags.writeable = False
    np.testing.assert_array_equal(resize(part, 20), expected)
