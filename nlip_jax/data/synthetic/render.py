"""Draws a scene with NumPy: signed distances to the outlines give the cover of every pixel."""

import math
from collections.abc import Callable
from functools import lru_cache

import numpy as np

from nlip_jax.data.synthetic.draw import Draw
from nlip_jax.data.synthetic.scenes import Backdrop, Group, Scene

_WHITE, _DARK = (250, 250, 250), (45, 45, 60)

# Saturated objects on muted backdrops; the ink of stripes and dots is what the colour is not.
_PAINT = {
    "red": ((225, 30, 35), _WHITE),
    "orange": ((252, 140, 15), _DARK),
    "yellow": ((252, 230, 40), _DARK),
    "green": ((35, 160, 55), _WHITE),
    "cyan": ((40, 215, 220), _DARK),
    "blue": ((35, 70, 225), _WHITE),
    "purple": ((130, 40, 185), _WHITE),
    "pink": ((252, 120, 190), _DARK),
}
_BACKDROP_PAINT = {
    "white": (244, 244, 244),
    "grey": (150, 150, 150),
    "black": (16, 16, 18),
    "beige": (214, 200, 172),
    "slate": (86, 96, 110),
    "mint": (206, 228, 213),
    "lavender": (205, 200, 225),
}
_GRAIN = 16  # random grey levels along a side of a noisy backdrop
_TILES = 4  # tiles along a side
_PERIOD = 0.12  # of stripes and dots: 4 pixels in 32
_RIM = 0.14  # of a patterned object stays plain, so that its outline shows on any backdrop

Array = np.ndarray


def render(scene: Scene, image_size: int) -> Array:
    """The picture of a scene.

    Args:
      scene: what to draw.
      image_size: side in pixels.

    Returns:
      `[image_size, image_size, 3]` uint8 RGB.
    """
    canvas = np.empty((image_size, image_size, 3), np.float32)
    canvas[...] = _BACKDROPS[scene.backdrop.style](scene.backdrop, image_size)
    for group in scene.groups:
        for centre in group.centres:
            _paint(canvas, group, centre)
    return np.rint(canvas).astype(np.uint8)


def _paint(canvas: Array, group: Group, centre: tuple[float, float]) -> None:
    """Blends one object into the part of the canvas that it can reach."""
    size = len(canvas)
    reach = 1.3 * group.radius + 1 / size  # corners lie outside the unit circle
    columns, rows = (
        slice(max(0, int((c - reach) * size)), min(size, int((c + reach) * size) + 1))
        for c in centre
    )
    x, y = (
        (np.arange(part.start, part.stop, dtype=np.float32) + 0.5) / size - c
        for part, c in zip((columns, rows), centre, strict=True)
    )
    cos, sin = math.cos(group.angle) / group.radius, math.sin(group.angle) / group.radius
    u = cos * x[None, :] + sin * y[:, None]  # the object's own frame: unit radius, upright
    v = cos * y[:, None] - sin * x[None, :]
    pixels = group.radius * size  # a unit of the frame, in pixels
    outline = _OUTLINES[group.shape](u, v)
    cover = _cover(outline * pixels)
    paint, ink = (np.asarray(rgb, np.float32) for rgb in _PAINT[group.colour])
    paint = paint * group.shade
    if group.texture != "plain":
        step = _PERIOD / group.radius
        pattern = _PATTERNS[group.texture](u / step, v / step) * step
        pattern = _cover(np.maximum(pattern, outline + _RIM) * pixels)
        paint = paint + pattern[..., None] * (ink - paint)
    area = canvas[rows, columns]
    area += cover[..., None] * (paint - area)


def _cover(distance: Array) -> Array:
    """Part of a pixel inside an outline at a signed distance in pixels (negative: inside)."""
    return np.clip(0.5 - distance, 0.0, 1.0)


# Outlines: signed distance (a bound of it outside corners) at (u, v) for an object of unit radius.


def _circle(u: Array, v: Array) -> Array:
    return np.hypot(u, v) - 0.95


def _ring(u: Array, v: Array) -> Array:
    return np.abs(np.hypot(u, v) - 0.73) - 0.25


def _square(u: Array, v: Array) -> Array:
    return np.maximum(np.abs(u), np.abs(v)) - 0.82


def _diamond(u: Array, v: Array) -> Array:
    return 0.83 * np.abs(u) + 0.56 * np.abs(v) - 0.6


def _triangle(u: Array, v: Array) -> Array:
    return np.maximum(v - 0.72, 0.88 * np.abs(u) - 0.475 * v - 0.52)


def _cross(u: Array, v: Array) -> Array:
    a, b = np.abs(u), np.abs(v)
    return np.maximum(np.maximum(a, b) - 0.98, np.minimum(a, b) - 0.33)


def _star(u: Array, v: Array) -> Array:
    # One tenth of the star, between a tip and the next notch, stands for all by symmetry.
    tip, notch = 1.06, 0.46
    turn = 2 * math.pi / 5
    angle = np.abs(np.mod(np.arctan2(u, -v) + turn / 2, turn) - turn / 2)
    radius = np.hypot(u, v)
    end_x, end_y = notch * math.cos(turn / 2), notch * math.sin(turn / 2)
    length = math.hypot(tip - end_x, end_y)
    along_x, along_y = radius * np.cos(angle) - tip, radius * np.sin(angle)
    return (along_x * end_y + along_y * (tip - end_x)) / length


def _heart(u: Array, v: Array) -> Array:
    # A square on its tip, with half circles on its two upper sides.
    half = 0.82
    a, b = np.abs(u), v + 0.08
    body = (a + np.abs(b) - half) * math.sqrt(0.5)
    return np.minimum(body, np.hypot(a - half / 2, b + half / 2) - half * math.sqrt(0.5))


_OUTLINES: dict[str, Callable[[Array, Array], Array]] = {
    "circle": _circle,
    "square": _square,
    "triangle": _triangle,
    "diamond": _diamond,
    "star": _star,
    "cross": _cross,
    "ring": _ring,
    "heart": _heart,
}


# Patterns: signed distance to the ink in periods, with ink in the middle of the object.


def _stripes(u: Array, v: Array) -> Array:
    return np.abs(_fold(u + 0 * v)) - 0.21


def _dots(u: Array, v: Array) -> Array:
    return np.hypot(_fold(u), _fold(v)) - 0.29


def _fold(x: Array) -> Array:
    """Distance to the nearest whole number, signed."""
    return x - np.rint(x)


_PATTERNS = {"striped": _stripes, "dotted": _dots}


# Backdrops: anything that broadcasts to [h, w, 3].


def _plain(backdrop: Backdrop, size: int) -> Array:
    return _rgb(backdrop.colours[0])


def _gradient(backdrop: Backdrop, size: int) -> Array:
    first, second = map(_rgb, backdrop.colours)
    x = (np.arange(size, dtype=np.float32) + 0.5) / size - 0.5
    cos, sin = math.cos(backdrop.angle), math.sin(backdrop.angle)
    position = 0.5 + (cos * x[None, :] + sin * x[:, None]) / (abs(cos) + abs(sin))
    return first + position[..., None] * (second - first)


def _noisy(backdrop: Backdrop, size: int) -> Array:
    noise = Draw(backdrop.seed)
    grid = np.array([noise.random() for _ in range(_GRAIN**2)], np.float32) - 0.5
    stretch = _stretch(size)
    grey = stretch @ grid.reshape(_GRAIN, _GRAIN) @ stretch.T
    return np.clip(_rgb(backdrop.colours[0]) + 90.0 * grey[..., None], 0.0, 255.0)


def _tiled(backdrop: Backdrop, size: int) -> Array:
    first, second = map(_rgb, backdrop.colours)
    tile = np.arange(size) * _TILES // size
    odd = (tile[None, :] + tile[:, None]) % 2
    return np.where(odd[..., None], second, first)


def _rgb(name: str) -> Array:
    return np.asarray(_BACKDROP_PAINT[name], np.float32)


@lru_cache(maxsize=8)
def _stretch(size: int) -> Array:
    """The matrix `[size, _GRAIN]` of linear interpolation along one axis."""
    position = np.clip((np.arange(size) + 0.5) * _GRAIN / size - 0.5, 0, _GRAIN - 1)
    weights = 1 - np.abs(position[:, None] - np.arange(_GRAIN))
    return np.clip(weights, 0, 1).astype(np.float32)


_BACKDROPS: dict[str, Callable[[Backdrop, int], Array]] = {
    "plain": _plain,
    "gradient": _gradient,
    "noisy": _noisy,
    "tiled": _tiled,
}
