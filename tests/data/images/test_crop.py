"""Which part of an image is seen."""

import math

import numpy as np
import pytest

from nlip_jax.data.images.crop import Box, center, on_grid, random_resized_crop, reduction, whole

SCALE, RATIO = (0.25, 0.5), (3 / 4, 4 / 3)


def draws(h, w, *, scale=SCALE, ratio=RATIO, count=300):
    for seed in range(count):
        rng = np.random.default_rng(seed)
        yield random_resized_crop(h, w, scale=scale, ratio=ratio, rng=rng)


def test_box_of_image():
    image = np.arange(24).reshape(4, 6)
    np.testing.assert_array_equal(Box(1, 2, 2, 3).of(image), [[8, 9, 10], [14, 15, 16]])


def test_center_and_whole():
    assert center(30, 90) == Box(0, 30, 30, 30)
    assert center(5, 2) == Box(1, 0, 2, 2)
    assert whole(30, 90) == Box(0, 0, 30, 90)


def test_random_crops_have_the_areas_and_ratios_asked_for():
    boxes = list(draws(600, 800))
    areas = [box.height * box.width / (600 * 800) for box in boxes]
    ratios = [math.log(box.width / box.height) for box in boxes]
    assert 0.249 < min(areas) < 0.26 and 0.49 < max(areas) < 0.501
    assert 0.36 < np.mean(areas) < 0.39
    assert min(ratios) < -0.27 and max(ratios) > 0.27 and abs(np.mean(ratios)) < 0.03
    assert max(map(abs, ratios)) < math.log(4 / 3) + 0.01


def test_random_crops_lie_everywhere_within_the_image():
    boxes = list(draws(60, 80))
    assert len(set(boxes)) > 250
    assert min(box.top for box in boxes) == min(box.left for box in boxes) == 0
    assert max(box.top + box.height for box in boxes) == 60
    assert max(box.left + box.width for box in boxes) == 80


@pytest.mark.parametrize(
    ("h", "w", "expected"),
    [(60, 60, (60, 60)), (10, 400, (10, 13)), (400, 10, (13, 10)), (1, 1, (1, 1))],
)
def test_what_fits_where_no_draw_does(h, w, expected):
    for box in draws(h, w, scale=(1.0, 1.0), ratio=RATIO, count=20):
        if (h, w) != (60, 60) or box.top or box.left:
            assert (box.height, box.width) == expected
            assert (box.top, box.left) == ((h - box.height) // 2, (w - box.width) // 2)


@pytest.mark.parametrize(
    ("h", "w", "factor"),
    [(223, 500, 1), (447, 900, 1), (448, 448, 2), (900, 895, 2), (896, 900, 4), (9999, 1800, 8)],
)
def test_reduction_leaves_enough(h, w, factor):
    assert reduction(Box(0, 0, h, w), 224) == factor


def test_on_grid():
    assert on_grid(Box(3, 5, 447, 600), 224) == Box(3, 5, 447, 600)
    assert on_grid(Box(3, 5, 449, 601), 224) == Box(2, 4, 448, 600)
    assert on_grid(Box(7, 8, 99, 99), 10) == Box(0, 8, 96, 96)
    for box in draws(3000, 4001, count=50):
        moved = on_grid(box, 224)
        n = reduction(box, 224)
        assert n > 1 and reduction(moved, 224) == n
        for name in ("top", "left", "height", "width"):
            assert 0 <= getattr(box, name) - getattr(moved, name) < n
            assert getattr(moved, name) % n == 0
