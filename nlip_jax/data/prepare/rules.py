"""ALIGN's rules: which images and which texts are left out.

Jia et al. 2021, "Scaling Up Visual and Vision-Language Representation Learning With Noisy Text
Supervision", section 3. A rule is a small pure function that says whether something is dropped;
`RULES` has their names, in the order in which they are applied.
"""

import math
import pkgutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from nlip_jax.data.prepare.words import number_of, token_numbers, words
from nlip_jax.errors import UsageError

# Name of a rule -> its limit; rules that are off are not there.
Limits = Mapping[str, int | float | str]


@dataclass(frozen=True)
class Facts:
    """What the rules ask of an image.

    Attributes:
      height: pixels, as it is shown.
      width: pixels.
      num_texts: texts that it has in the raw data.
    """

    height: int
    width: int
    num_texts: int


def is_small(image: Facts, limit: int) -> bool:
    """Whether the shorter side is no longer than the limit."""
    return min(image.height, image.width) <= limit


def is_elongated(image: Facts, limit: float) -> bool:
    """Whether the longer side is as long as `limit` shorter ones, or longer."""
    return max(image.height, image.width) >= limit * min(image.height, image.width)


def has_many_texts(image: Facts, limit: int) -> bool:
    """Whether it has more texts than the limit."""
    return image.num_texts > limit


def has_few_words(text: str, limit: int) -> bool:
    """Whether it has fewer unigrams than the limit."""
    return len(words(text)) < limit


def has_many_words(text: str, limit: int) -> bool:
    """Whether it has more unigrams than the limit."""
    return len(words(text)) > limit


def is_shared(text: str, shared: np.ndarray) -> bool:
    """Whether it is one of the texts that too many images have.

    Args:
      text: of an image.
      shared: `[k]` uint64 numbers of those texts, sorted.
    """
    return bool(_is_in(np.array([number_of(text)], np.uint64), shared).any())


def has_rare_token(text: str, known: np.ndarray) -> bool:
    """Whether one of its unigrams and bigrams is none of those that are known.

    Args:
      text: of an image.
      known: `[k]` uint64 numbers of the frequent unigrams and bigrams, sorted.
    """
    return not _is_in(token_numbers(text), known).all()


def is_refused(text: str, accepts: Callable[[str], bool]) -> bool:
    """Whether a function of the user's does not accept it."""
    return not accepts(text)


@dataclass(frozen=True)
class Rule:
    """An entry of the table.

    Attributes:
      meaning: what is kept, for people.
      drops: (image facts or text, limit or what was made of it) -> whether it is left out.
      kind: type of the limit.
      of_images: whether it looks at images; else at texts.
      align: the published limit, if any.
      needs_counts: whether the limit becomes a table of numbers by counting all texts first.
    """

    meaning: str
    drops: Callable[[Any, Any], bool]
    kind: type
    of_images: bool = False
    align: int | float | None = None
    needs_counts: bool = False


RULES = {
    "min_side": Rule("shorter side over so many pixels", is_small, int, True, 200),
    "max_aspect": Rule("longer side under so many shorter ones", is_elongated, float, True, 3.0),
    "max_texts": Rule("at most so many texts for an image", has_many_texts, int, True, 1000),
    "max_images": Rule(
        "texts of at most so many images", is_shared, int, align=10, needs_counts=True
    ),
    "min_words": Rule("texts of at least so many unigrams", has_few_words, int, align=3),
    "max_words": Rule("texts of at most so many unigrams", has_many_words, int, align=20),
    "top_tokens": Rule(
        "texts whose unigrams and bigrams are all among so many most frequent ones",
        has_rare_token,
        int,
        align=100_000_000,
        needs_counts=True,
    ),
    "min_token_count": Rule(
        "texts whose unigrams and bigrams all occur at least so often",
        has_rare_token,
        int,
        needs_counts=True,
    ),
    "language": Rule("texts that package.module:function accepts", is_refused, str),
}

ALIGN = {name: rule.align for name, rule in RULES.items() if rule.align is not None}


def parse_rules(text: str) -> dict[str, int | float | str]:
    """Reads the rules of a command line.

    Args:
      text: such as "align", "align,min_side=256,language=off" or "min_words=3".

    Returns:
      The limits of the rules that are on, in the order of `RULES`.

    Raises:
      UsageError: no such rule, or no such limit.
    """
    limits = {}
    for item in filter(None, (item.strip() for item in text.split(","))):
        name, equals, value = (part.strip() for part in item.partition("="))
        if item == "align":
            limits |= ALIGN
        elif name not in RULES or not equals:
            raise UsageError(
                f"--rules={text!r}: {item!r} is neither align nor NAME=LIMIT or NAME=off with a "
                f"name of {', '.join(RULES)}"
            )
        elif value == "off":
            limits.pop(name, None)
        else:
            limits[name] = _parse_limit(name, value)
    return {name: limits[name] for name in RULES if name in limits}


def _parse_limit(name: str, value: str) -> int | float | str:
    kind = RULES[name].kind
    if kind is str:
        load_function(value)
        return value
    try:
        limit = kind(value)
    except ValueError:
        limit = math.nan
    if not 1 <= limit < math.inf:
        what = "a whole number from 1 on" if kind is int else "a number from 1 on"
        raise UsageError(f"--rules: {name}={value}: must be {what}, or off")
    return limit


def load_function(name: str) -> Callable[[str], bool]:
    """The function of a user that "package.module:function" names.

    Raises:
      UsageError: there is none.
    """
    try:
        function = pkgutil.resolve_name(name)
    except (ImportError, AttributeError, ValueError) as error:
        raise UsageError(f"--rules: language={name}: cannot be imported: {error}") from error
    if ":" not in name or not callable(function):
        raise UsageError(f"--rules: language={name}: is no package.module:function")
    return function


class Screen:
    """The rules that are on, ready to be applied.

    Args:
      limits: by name.
      tables: `[k]` uint64 for each rule that needs counts.
    """

    def __init__(self, limits: Limits, tables: Mapping[str, np.ndarray]) -> None:
        made = {
            name: tables[name] if RULES[name].needs_counts else limit
            for name, limit in limits.items()
        }
        if "language" in made:
            made["language"] = load_function(made["language"])
        tests = [(name, RULES[name], limit) for name, limit in made.items()]
        self._of_images = [(n, rule.drops, limit) for n, rule, limit in tests if rule.of_images]
        self._of_texts = [(n, rule.drops, limit) for n, rule, limit in tests if not rule.of_images]

    def image(self, facts: Facts) -> str | None:
        """The first rule that drops an image, if any."""
        return next((name for name, drops, limit in self._of_images if drops(facts, limit)), None)

    def text(self, text: str) -> str | None:
        """The first rule that drops a text, if any."""
        return next((name for name, drops, limit in self._of_texts if drops(text, limit)), None)


def _is_in(numbers: np.ndarray, table: np.ndarray) -> np.ndarray:
    """Which numbers are in a sorted table, `[k]` bool."""
    places = np.searchsorted(table, numbers)
    inside = places < len(table)
    found = np.zeros(len(numbers), bool)
    found[inside] = table[places[inside]] == numbers[inside]
    return found
