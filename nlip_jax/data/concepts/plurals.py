"""From plurals to singulars: "boxes" to "box", and never "glass" to "glas"."""

import functools

from nlip_jax.data.concepts.tables import IRREGULAR_PLURALS, PLURALS, THINGS
from nlip_jax.data.concepts.wordnet import THING, is_noun, words

_HISSING = ("s", "x", "z", "ch", "sh")
_SELDOM_PLURAL = ("us", "is")  # bus, iris; but menus


@functools.lru_cache(1 << 16)
def singular(word: str) -> str:
    """The singular of a noun, or the word as it is: WordNet's nouns decide what one is.

    Args:
      word: lower case. A plural that is a word of its own (jeans, woods) stays.
    """
    if word in IRREGULAR_PLURALS:
        return IRREGULAR_PLURALS[word]
    if word in PLURALS:
        return word
    known = [one for one in _candidates(word) if is_noun(one) or one in THINGS]
    if not known:
        return word
    found = max(known, key=_frequency)
    own, one = words().get(word), words().get(found)
    if own is None or own.kind != THING or one is None:
        return found
    is_own_word = own.noun >= one.noun or one.kind != THING
    return word if is_own_word else found


def _frequency(word: str) -> int:
    return words()[word].noun if word in words() else 0


def _candidates(word: str) -> list[str]:
    """What the word may be the plural of, the likeliest first."""
    if len(word) < 4 or not word.endswith("s") or word.endswith("ss"):
        return []
    if word.endswith(_SELDOM_PLURAL) and is_noun(word):
        return []
    if word.endswith("ies"):
        return [word[:-3] + "y", word[:-1]]
    if word.endswith("es") and word[:-2].endswith(_HISSING):
        return [word[:-1], word[:-2]]  # crosse or cross: the more frequent one
    return [word[:-2] if word.endswith("es") and not is_noun(word[:-1]) else word[:-1]]
