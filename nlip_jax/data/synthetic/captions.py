"""What a caption says of a scene, and how it says it.

`describe` picks the facts, `thin` leaves some out, `word` finds the words. A description never
holds anything that is not so, hence neither does any caption made from it.
"""

from typing import NamedTuple

from nlip_jax.data.synthetic.draw import Draw
from nlip_jax.data.synthetic.scenes import Backdrop, Group, Scene, place, relation


class Mention(NamedTuple):
    """What is said of one group; None is left unsaid. Colour or shape is always said."""

    count: int
    colour: str | None
    shape: str | None
    size: str | None = None
    texture: str | None = None
    place: str | None = None


class Description(NamedTuple):
    """What a caption says; `relation` is where the first group lies seen from the second."""

    mentions: tuple[Mention, ...]
    relation: str | None = None
    backdrop: Backdrop | None = None


def describe(scene: Scene, draw: Draw) -> Description:
    """Every group with its count, size, texture, colour and shape; some of where and on what.

    Few groups leave room for more of the rest, so captions stay between 5 and 25 words or so.
    """
    groups = draw.shuffled(scene.groups)
    related = None
    if len(groups) > 1 and draw.chance(0.4):
        related = relation(groups[0], groups[1])
    placed = related is None and draw.chance((0.4, 0.3, 0.0, 0.0)[len(groups) - 1])
    on = draw.chance((0.4, 0.3, 0.3, 0.1)[len(groups) - 1])
    return Description(
        mentions=tuple(_mention(group, placed) for group in groups),
        relation=related,
        backdrop=scene.backdrop if on else None,
    )


def thin(description: Description, draw: Draw) -> Description:
    """A poorer description: fewer groups, and of those not even both colour and shape at times."""
    mentions = draw.shuffled(description.mentions)[: max(1, len(description.mentions) // 2)]
    lone = len(description.mentions) == 1
    return Description(tuple(_blur(mention, draw, always=lone) for mention in mentions))


def word(description: Description, draw: Draw) -> str:
    """A caption that says just what the description holds."""
    phrases = [_phrase(mention, draw) for mention in description.mentions]
    if description.relation is not None:
        between = draw.pick(_RELATIONS[description.relation])
        phrases[:2] = [f"{phrases[0]} {between} {phrases[1]}"]
    things = _join(phrases, draw)
    be = "is" if description.mentions[0].count == 1 else "are"
    if description.backdrop is None:
        text = draw.pick(_FRAMES).format(things=things, be=be)
    else:
        style = draw.pick(_BACKDROPS[description.backdrop.style])
        backdrop = style.format(*description.backdrop.colours)
        text = draw.pick(_BACKDROP_FRAMES).format(things=things, be=be, backdrop=backdrop)
    return text[0].upper() + text[1:] + "." if draw.chance(0.4) else text


def names_of(name: str) -> tuple[str, ...]:
    """All words for a colour or a shape, in the singular; the plain one first."""
    return (name, *_SYNONYMS[name])


def plural(noun: str) -> str:
    """The plural of a noun of these captions."""
    return noun + ("es" if noun[-1] in "sx" else "s")


def _mention(group: Group, placed: bool) -> Mention:
    return Mention(
        count=group.count,
        colour=group.colour,
        shape=group.shape,
        size=None if group.size == "medium" else group.size,
        texture=None if group.texture == "plain" else group.texture,
        place=place(group.centres[0]) if placed and group.count == 1 else None,
    )


def _blur(mention: Mention, draw: Draw, *, always: bool) -> Mention:
    bare = Mention(mention.count, mention.colour, mention.shape)
    if not always and draw.chance(0.5):
        return bare
    return bare._replace(**{draw.pick(("colour", "shape")): None})


def _phrase(mention: Mention, draw: Draw) -> str:
    """A noun phrase such as "a small striped red circle in the upper left"."""
    many = mention.count > 1
    noun = draw.pick(_THINGS) if mention.shape is None else _name(mention.shape, draw)
    noun = plural(noun) if many else noun
    adjectives = [] if mention.size is None else [draw.pick(_ATTRIBUTES[mention.size])]
    tail = []
    colour = [] if mention.colour is None else [_name(mention.colour, draw)]
    if mention.texture is not None:
        if draw.chance(0.3):
            tail.append(_TEXTURE_TAILS[mention.texture])
        else:
            colour.insert(int(2 * draw.random()), draw.pick(_ATTRIBUTES[mention.texture]))
    if mention.place is not None:
        tail.append(draw.pick(_PLACES[mention.place]))
    text = " ".join([*adjectives, *colour, noun, *tail])
    article = "an" if text[0] in "aeiou" else "a"
    return f"{draw.pick(_COUNTS[mention.count]) if many else article} {text}"


def _name(name: str, draw: Draw) -> str:
    """The plain name of a colour or shape, or now and then another word for it."""
    return name if draw.chance(0.85) else draw.pick(_SYNONYMS[name])


def _join(phrases: list[str], draw: Draw) -> str:
    if len(phrases) == 1:
        return phrases[0]
    last = draw.pick((" and ", " and ", ", and ", " with ", " together with ", " plus "))
    return ", ".join(phrases[:-1]) + last + phrases[-1]


_FRAMES = (
    "{things}",
    "{things}",
    "a picture of {things}",
    "an image of {things}",
    "a photo of {things}",
    "there {be} {things}",
    "here {be} {things}",
    "this picture shows {things}",
    "we see {things}",
    "a scene with {things}",
)
_BACKDROP_FRAMES = (
    "{things} on {backdrop}",
    "{things} on {backdrop}",
    "{things} against {backdrop}",
    "{things} in front of {backdrop}",
    "on {backdrop} there {be} {things}",
    "a picture of {things} on {backdrop}",
    "an image showing {things} over {backdrop}",
    "there {be} {things} on {backdrop}",
    "{backdrop} with {things}",
    "this picture shows {things} against {backdrop}",
)
_BACKDROPS = {
    "plain": ("a {0} background", "a plain {0} background", "a {0} backdrop"),
    "gradient": (
        "a background fading from {0} to {1}",
        "a {0} to {1} gradient",
        "a gradient of {0} and {1}",
    ),
    "noisy": ("a noisy {0} background", "a mottled {0} background", "a cloudy {0} backdrop"),
    "tiled": ("{0} and {1} tiles", "a {0} and {1} chequered background", "tiles of {0} and {1}"),
}
_COUNTS = {2: ("two", "two", "a pair of"), 3: ("three",), 4: ("four",)}
_THINGS = ("shape", "thing", "object")
_SYNONYMS = {
    "red": ("scarlet", "crimson"),
    "orange": ("tangerine", "amber"),
    "yellow": ("lemon", "golden"),
    "green": ("emerald", "grass green"),
    "cyan": ("turquoise", "aqua"),
    "blue": ("royal blue", "azure"),
    "purple": ("violet",),
    "pink": ("rose", "hot pink"),
    "circle": ("disc",),
    "square": ("box",),
    "triangle": ("triangular shape",),
    "diamond": ("rhombus",),
    "star": ("five-pointed star",),
    "cross": ("plus sign",),
    "ring": ("hoop", "donut"),
    "heart": ("heart shape",),
}
_ATTRIBUTES = {
    "small": ("small", "small", "little", "tiny"),
    "large": ("large", "large", "big", "huge"),
    "striped": ("striped", "striped", "stripy"),
    "dotted": ("dotted", "dotted", "spotted"),
}
_TEXTURE_TAILS = {"striped": "with stripes", "dotted": "with dots"}
_PLACES = {
    "left": ("on the left", "on the left side", "at the left"),
    "right": ("on the right", "on the right side", "at the right"),
    "top": ("at the top", "near the top"),
    "bottom": ("at the bottom", "near the bottom"),
    "middle": ("in the middle", "in the centre"),
    "upper left": ("in the upper left", "in the upper left corner", "at the top left"),
    "upper right": ("in the upper right", "in the upper right corner", "at the top right"),
    "lower left": ("in the lower left", "in the lower left corner", "at the bottom left"),
    "lower right": ("in the lower right", "in the lower right corner", "at the bottom right"),
}
_RELATIONS = {
    "left": ("to the left of", "left of", "on the left of"),
    "right": ("to the right of", "right of", "on the right of"),
    "above": ("above", "over", "higher than"),
    "below": ("below", "under", "beneath"),
}
