"""What is in a scene and where: the description that both the picture and the caption follow.

Lengths are fractions of the image side, so a scene is the same scene at every resolution. The
origin is the upper left corner, x goes right and y goes down.
"""

import math
from typing import NamedTuple

from nlip_jax.data.synthetic.draw import Draw

COLOURS = ("red", "orange", "yellow", "green", "cyan", "blue", "purple", "pink")
SHAPES = ("circle", "square", "triangle", "diamond", "star", "cross", "ring", "heart")
TEXTURES = ("plain", "striped", "dotted")
RADII = {"small": 0.14, "medium": 0.18, "large": 0.23}  # small: 9 pixels across in 32
BACKDROPS = ("plain", "gradient", "noisy", "tiled")
BACKDROP_COLOURS = ("white", "grey", "black", "beige", "slate", "mint", "lavender")

KINDS = tuple((colour, shape) for colour in COLOURS for shape in SHAPES)

_THIN = ("star", "cross", "ring")  # limbs, like small objects, cannot show a pattern in 32 pixels
_MAX_OBJECTS = 4  # more would not fit at a size that 32 pixels can show
# Objects stand near the nine crossings of a lattice. Could they stand anywhere, a small vision
# transformer with patches of 8 pixels would learn colours but no shapes in 2,000 steps.
_CROSSINGS = tuple((x, y) for x in (0.25, 0.5, 0.75) for y in (0.25, 0.5, 0.75))
_JITTER = 0.015


class Backdrop(NamedTuple):
    """What lies behind the objects; `angle` turns gradients, `seed` names the noise."""

    style: str
    colours: tuple[str, str]  # plain and noisy backdrops use the first one only
    angle: float
    seed: str


class Group(NamedTuple):
    """One object, or several of the same look."""

    colour: str
    shape: str
    size: str
    texture: str
    radius: float
    angle: float
    shade: float  # factor of brightness
    centres: tuple[tuple[float, float], ...]

    @property
    def count(self) -> int:
        """Number of objects."""
        return len(self.centres)


class Scene(NamedTuple):
    """A backdrop and one to four groups, no two of the same colour and shape."""

    backdrop: Backdrop
    groups: tuple[Group, ...]


def sample_scene(draw: Draw) -> Scene:
    """A scene of one to four objects in one to four groups."""
    backdrop = _sample_backdrop(draw)
    number = draw.pick((1, 1, 1, 2, 2, 2, 3, 3, 4))
    sizes = ("small", "medium", "large", "large") if number < 3 else ("small", "medium")
    free = _MAX_OBJECTS - number
    # Half of the scenes have one colour only, so that shapes are needed to tell captions apart.
    palette = (draw.pick(COLOURS),) if draw.chance(0.5) else COLOURS
    kinds: list[tuple[str, str]] = []
    groups: list[Group] = []
    taken: list[tuple[float, float, float]] = []
    for _ in range(number):
        kind = draw.pick([k for k in KINDS if k[0] in palette and k not in kinds])
        extra = 1 + int(draw.random() * free) if free and draw.chance(0.25) else 0
        free -= extra
        group = _sample_group(draw, kind, 1 + extra, sizes, taken)
        kinds.append(kind)
        if group.centres:  # a crowded scene may have no room left
            groups.append(group)
    return Scene(backdrop, tuple(groups))


def sample_single(draw: Draw, kind: tuple[str, str]) -> Scene:
    """A scene of one object of the given (colour, shape)."""
    backdrop = _sample_backdrop(draw)
    return Scene(backdrop, (_sample_group(draw, kind, 1, tuple(RADII), []),))


def place(centre: tuple[float, float]) -> str:
    """Where in the image a point lies, as one of nine names such as "upper left"."""
    column = ("left", "middle", "right")[(centre[0] > 0.4) + (centre[0] > 0.6)]
    row = ("upper", "middle", "lower")[(centre[1] > 0.4) + (centre[1] > 0.6)]
    if row == "middle":
        return column
    return {"upper": "top", "lower": "bottom"}[row] if column == "middle" else f"{row} {column}"


def relation(first: Group, second: Group) -> str | None:
    """Where the first object lies seen from the second; None where no one word is clearly true."""
    if first.count > 1 or second.count > 1:
        return None
    right = first.centres[0][0] - second.centres[0][0]
    down = first.centres[0][1] - second.centres[0][1]
    if abs(right) > 1.5 * abs(down):
        return "right" if right > 0 else "left"
    if abs(down) > 1.5 * abs(right):
        return "below" if down > 0 else "above"
    return None


def _sample_backdrop(draw: Draw) -> Backdrop:
    first = draw.pick(BACKDROP_COLOURS)
    second = draw.pick([colour for colour in BACKDROP_COLOURS if colour != first])
    return Backdrop(
        style=draw.pick(("plain", *BACKDROPS)),
        colours=(first, second),
        angle=draw.between(0.0, 2 * math.pi),
        seed=f"backdrop {draw.random()}",
    )


def _sample_group(
    draw: Draw,
    kind: tuple[str, str],
    count: int,
    sizes: tuple[str, ...],
    taken: list[tuple[float, float, float]],
) -> Group:
    size = draw.pick(sizes if count == 1 else ("small", "medium"))
    radius = RADII[size] * draw.between(0.96, 1.0)
    texture = draw.pick(("plain", "plain", *TEXTURES))
    if size == "small" or kind[1] in _THIN:
        texture = "plain"
    angle, shade = draw.between(-0.1, 0.1), draw.between(0.9, 1.0)
    centres = []
    for _ in range(count):
        centre = _free_centre(draw, radius, taken)
        if centre is not None:
            centres.append(centre)
            taken.append((*centre, radius))
    return Group(*kind, size, texture, radius, angle, shade, tuple(centres))


def _free_centre(
    draw: Draw, radius: float, taken: list[tuple[float, float, float]]
) -> tuple[float, float] | None:
    """A centre whose circle touches no other, or None; adds nothing to `taken`."""
    for crossing in draw.shuffled(_CROSSINGS):
        x, y = (line + draw.between(-_JITTER, _JITTER) for line in crossing)
        if all(math.hypot(x - u, y - v) > 1.05 * (radius + r) for u, v, r in taken):
            return x, y
    return None
