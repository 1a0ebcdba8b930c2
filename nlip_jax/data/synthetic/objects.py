"""Which objects a text names, in the words of the captions of scenes.

The inverse of `captions.word`, for whoever measures texts that a model made. Colours and shapes are
found by any of their names, in singular and plural.
"""

import re
from typing import NamedTuple

from nlip_jax.data.synthetic.captions import names_of, plural
from nlip_jax.data.synthetic.scenes import COLOURS, SHAPES, Scene


class NamedObject(NamedTuple):
    """An object as a text names it; `colour` is None where the text does not say it."""

    colour: str | None
    shape: str


_TOKEN = re.compile(r"[a-z]+|[.,;:!?()]")
# A colour belongs to the shape that ends its noun phrase; these begin or end one.
_BORDERS = frozenset(
    """
    a an the one two three four some several pair couple group of and or plus together with without
    to at in on over above below under beneath behind beside near than against from left right is
    are there here this that it we see shows showing shape shapes thing things object objects
    """.split()  # noqa: SIM905  a list of words is read more easily so
)


def _words(names: tuple[str, ...]) -> dict[tuple[str, ...], str]:
    """Words of every spelling -> the plain name."""
    spellings = {}
    for name in names:
        for spelling in names_of(name):
            for form in (spelling, plural(spelling)):
                spellings[tuple(_TOKEN.findall(form))] = name
    return spellings


_COLOUR_OF, _SHAPE_OF = _words(COLOURS), _words(SHAPES)
_LONGEST = max(map(len, (*_COLOUR_OF, *_SHAPE_OF)))


def object_words(caption: str) -> frozenset[NamedObject]:
    """The objects that a text names.

    Args:
      caption: any text.

    Returns:
      Each shape that is named, with the colour that stands before it in its phrase.
    """
    tokens = _TOKEN.findall(caption.lower())
    found, colour, place = set(), None, 0
    while place < len(tokens):
        for width in range(_LONGEST, 0, -1):
            words = tuple(tokens[place : place + width])
            if words in _SHAPE_OF:
                found.add(NamedObject(colour, _SHAPE_OF[words]))
                colour = None
                break
            if words in _COLOUR_OF:
                colour = _COLOUR_OF[words]
                break
        else:
            width = 1
            if tokens[place] in _BORDERS or not tokens[place].isalpha():
                colour = None
        place += min(width, len(tokens) - place)
    return frozenset(found)


def objects_of(scene: Scene) -> frozenset[NamedObject]:
    """The objects that a scene shows."""
    return frozenset(NamedObject(group.colour, group.shape) for group in scene.groups)
