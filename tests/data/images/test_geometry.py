"""Shears, shifts and turns against Pillow's."""

import math

import numpy as np
import pytest
from PIL import Image
from tars import pixels

from nlip_jax.data.images import geometry

IMAGE = pixels(3, 60, 80)
BILINEAR = Image.Resampling.BILINEAR
GREY = (128, 128, 128)


def by_pillow(*matrix):
    """What was at (a x + b y + c, d x + e y + f), as Pillow shows it at (x, y)."""
    image = Image.fromarray(IMAGE)
    turned = image.transform(image.size, Image.Transform.AFFINE, matrix, BILINEAR, fillcolor=GREY)
    return np.asarray(turned)


def close(result, expected):
    """Equal but for the seam to what moved in, which Pillow does not interpolate."""
    difference = np.abs(result.astype(int) - expected).max(2)
    assert result.shape == IMAGE.shape and result.dtype == np.uint8
    assert (difference > 3).mean() < 0.05 and difference.mean() < 2


@pytest.mark.parametrize("slope", [-0.3, 0.0, 0.12])
def test_shear(slope):
    close(geometry.shear_x(IMAGE, slope), by_pillow(1, slope, 0, 0, 1, 0))
    close(geometry.shear_y(IMAGE, slope), by_pillow(1, 0, 0, slope, 1, 0))


@pytest.mark.parametrize("share", [-0.4, 0.0, 0.0333])
def test_translate(share):
    close(geometry.translate_x(IMAGE, share), by_pillow(1, 0, 80 * share, 0, 1, 0))
    close(geometry.translate_y(IMAGE, share), by_pillow(1, 0, 0, 0, 1, 60 * share))


@pytest.mark.parametrize("degrees", [-30, 0, 7.5, 90])
def test_rotate(degrees):
    expected = Image.fromarray(IMAGE).rotate(degrees, BILINEAR, fillcolor=GREY)
    close(geometry.rotate(IMAGE, degrees), np.asarray(expected))


def test_by_nothing_is_nothing():
    for turn in (geometry.shear_x, geometry.translate_y, geometry.rotate):
        np.testing.assert_array_equal(turn(IMAGE, 0.0), IMAGE)
    np.testing.assert_array_equal(geometry.flip(IMAGE), IMAGE[:, ::-1])


def test_what_moves_in_is_grey():
    assert (geometry.translate_x(IMAGE, 0.5)[:, 41:] == 128).all()
    corner = geometry.rotate(IMAGE, 45)[0, 0]
    assert corner.tolist() == list(GREY) and not math.isclose(IMAGE.mean(), 128, abs_tol=1e-3)
