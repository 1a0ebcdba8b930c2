"""Nouns and short noun phrases of a caption by rules, without a tagger that was trained.

A caption is cut into runs of words where function words, punctuation and whatever is no text stand.
In a run, WordNet's counts say what each word mostly is, and its place decides the rest:

* after a determiner, a number or an adjective a word that may be a noun is one ("a walk" does not
  count all the same: WordNet calls it a doing that is mostly a verb);
* after a noun, a word that is mostly a verb is one ("a dog runs", "two men watch") and ends the
  phrase, unless their number forbids it ("a bus stop"); so does a word in -ing, but for those that
  are nouns (building, ceiling);
* an adjective after a noun begins another phrase ("a man tall and thin");
* the longest noun of WordNet wins ("hot dog" is no dog), but colours stand for themselves.

"a small striped red circle" so gives "circle", "red circle" and "striped red circle".
"""

import enum
import functools
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

from nlip_jax.data.concepts import tables
from nlip_jax.data.concepts.plurals import singular
from nlip_jax.data.concepts.raw_text import BREAK, END, OWNER, split_chunk
from nlip_jax.data.concepts.wordnet import DOING, THING, Entry, words

_LONGEST_NOUN = 3  # words of the nouns that WordNet's file has
_MAX_CHARACTERS = 2_000  # of a caption; what follows is not looked at


class Kind(enum.Enum):
    """What a word is by itself."""

    NOUN = "a noun"
    MOSTLY_VERB = "a noun where a noun must stand, else a verb"
    MOSTLY_ADJECTIVE = "an adjective, or a noun where nothing follows"
    MODIFIER = "stands before nouns: an adjective, or a noun of what no image shows"
    GERUND = "a form in -ing: stands before nouns after a determiner, else a verb"
    OTHER = "ends a phrase"


class _Ending(enum.Enum):
    """What ends a run of words, by what it says of its neighbours."""

    ONE = "the next run begins with an adjective or a noun, and tells of one thing"
    SEVERAL = "likewise, of several things"
    DETERMINER = "likewise, of any number"
    PREPOSITION = "the next run does not begin with a verb, unless it is one in -ing"
    OF = "likewise, and the run before it may be a quantity"
    JOINS = "the run before it may be half of two adjectives"
    PLAIN = "nothing"


_OPENING = (_Ending.ONE, _Ending.SEVERAL, _Ending.DETERMINER)
_ENDINGS = {
    **dict.fromkeys(tables.FUNCTION_WORDS, _Ending.PLAIN),
    **dict.fromkeys(tables.PREPOSITIONS, _Ending.PREPOSITION),
    **dict.fromkeys(tables.OPENERS, _Ending.DETERMINER),
    **dict.fromkeys(tables.OPEN_SEVERAL, _Ending.SEVERAL),
    **dict.fromkeys(tables.OPEN_ONE, _Ending.ONE),
    **dict.fromkeys(tables.JOINERS, _Ending.JOINS),
    BREAK: _Ending.JOINS,
    END: _Ending.PLAIN,
    OWNER: _Ending.DETERMINER,
    "of": _Ending.OF,
}


class Reading(NamedTuple):
    """A word, or a noun of several words; `lemma` is empty where it cannot be a noun."""

    kind: Kind
    lemma: str = ""
    last: str = ""  # a noun of several words: its last word, where it is a kind of that
    width: int = 1  # words


_Phrase = list[tuple[str, Reading]]  # words as they are written, and what they are


@dataclass(frozen=True)
class RuleTagger:
    """Finds concepts by rules.

    Attributes:
      max_words: of a phrase.
    """

    max_words: int

    def __call__(self, captions: Iterable[str]) -> Iterator[frozenset[str]]:
        """The concepts of each caption."""
        for caption in captions:
            yield frozenset(self._find(caption))

    def _find(self, caption: str) -> set[str]:
        found: set[str] = set()
        run: list[str] = []
        before = _Ending.PLAIN
        for chunk in (*caption[:_MAX_CHARACTERS].lower().split(), END):
            for word in split_chunk(chunk):
                ending = _ENDINGS.get(word)
                if ending is None:
                    run.append(word)
                    continue
                if run:
                    found.update(_parse(tuple(run), before, ending, self.max_words))
                    run.clear()
                before = ending
        return found


def folded_words(text: str) -> list[str]:
    """The words of a text, lower case and each in its singular, without what is no text.

    Args:
      text: a caption or a concept; what it names can be looked for by words.
    """
    found = (word for chunk in text.lower().split() for word in split_chunk(chunk))
    return [singular(word) for word in found if word not in (BREAK, END, OWNER)]


@functools.lru_cache(1 << 16)
def read_word(text: str) -> Reading:
    """What a word is by itself.

    Args:
      text: lower case.
    """
    lemma = singular(text)
    entry = words().get(lemma)
    if lemma in tables.THINGS or lemma in tables.PLURALS:
        return Reading(Kind.NOUN, lemma)
    if lemma in tables.THINGS_OR_VERBS:
        return Reading(Kind.MOSTLY_VERB, lemma)
    if text.endswith("ing") and lemma not in tables.NOUNS_IN_ING:
        return Reading(Kind.GERUND if entry else Kind.OTHER)
    if entry is None:
        return Reading(Kind.OTHER)
    if lemma in tables.NOT_THINGS or text in tables.COLOURS - tables.ADJECTIVES:
        return Reading(Kind.MODIFIER)
    return _read_entry(entry, lemma, is_plural=lemma != text)


def _read_entry(entry: Entry, lemma: str, *, is_plural: bool) -> Reading:
    mostly_verb = entry.verb > entry.noun
    if entry.kind == THING:
        if mostly_verb and entry.verb >= entry.other:
            return Reading(Kind.MOSTLY_VERB, lemma)
        is_adjective = entry.other > entry.noun or lemma in tables.ADJECTIVES
        if is_adjective and not is_plural:
            return Reading(Kind.MOSTLY_ADJECTIVE, lemma)
        return Reading(Kind.NOUN, lemma)
    if entry.kind == DOING and not mostly_verb and entry.other <= entry.noun:
        return Reading(Kind.NOUN, lemma)
    if entry.verb > max(entry.noun, entry.other):
        return Reading(Kind.OTHER)
    is_modifier = entry.noun or entry.may_be_other
    return Reading(Kind.MODIFIER if is_modifier else Kind.OTHER)


@functools.lru_cache(1 << 16)
def _read_compound(texts: tuple[str, ...]) -> Reading | None:
    """Several words as one noun of WordNet."""
    lemma = " ".join((*texts[:-1], singular(texts[-1])))
    for name in (" ".join(texts), lemma):
        entry = words().get(name)
        if entry is not None and entry.kind in (THING, DOING):
            last = singular(texts[-1]) if entry.includes_last else ""
            return Reading(Kind.NOUN, name, last, len(texts))
    return None


def _read(texts: tuple[str, ...], start: int, before: _Ending, max_words: int) -> Reading:
    """The longest noun of WordNet that begins at a word, or that word by itself."""
    if texts[start] in tables.COLOURS:
        return read_word(texts[start])
    for width in range(min(_LONGEST_NOUN, max_words, len(texts) - start), 1, -1):
        last = texts[start + width - 1]
        is_verb = before is _Ending.ONE and last != singular(last)  # "a bus stops"
        if is_verb or last in tables.COLOURS:
            continue
        found = _read_compound(texts[start : start + width])
        if found is not None:
            return found
    return read_word(texts[start])


@functools.lru_cache(1 << 17)
def _parse(
    texts: tuple[str, ...], before: _Ending, ending: _Ending, max_words: int
) -> tuple[str, ...]:
    """The concepts of a run of words.

    Args:
      texts: the run.
      before: what stands before it.
      ending: what follows.
      max_words: of a phrase.
    """
    found: list[str] = []
    phrase: _Phrase = []
    place = 0
    while place < len(texts):
        reading = _read(texts, place, before, max_words)
        text = " ".join(texts[place : place + reading.width])
        place += reading.width
        kind = _kind_in_place(reading, text, phrase, before)
        ends = phrase and phrase[-1][1].kind is Kind.NOUN and kind is not Kind.NOUN
        if kind is Kind.OTHER or ends:
            found += _concepts(phrase, max_words)
            phrase, before = [], _Ending.PLAIN
        if kind is not Kind.OTHER:
            phrase.append((text, reading._replace(kind=kind)))
    if ending is _Ending.OF and phrase and phrase[-1][1].lemma in tables.QUANTITIES:
        phrase.pop()
    if before in _OPENING and ending is not _Ending.JOINS and len(phrase) == 1:
        ((text, reading),) = phrase
        if reading.kind is Kind.MOSTLY_ADJECTIVE:  # "an orange"
            phrase = [(text, reading._replace(kind=Kind.NOUN))]
    return (*found, *_concepts(phrase, max_words))


def _kind_in_place(reading: Reading, text: str, phrase: _Phrase, before: _Ending) -> Kind:
    """What a word is after those before it: in its phrase, if that has begun, and in its run."""
    after_noun = bool(phrase) and phrase[-1][1].kind is Kind.NOUN
    if reading.kind is Kind.MOSTLY_VERB:
        if after_noun:  # "a bus stop" and "two bus stops", but "a bus stops" and "two buses stop"
            only_noun = _Ending.ONE if text == reading.lemma else _Ending.SEVERAL
            return Kind.NOUN if before is only_noun else Kind.OTHER
        may_be_noun = phrase or before in (*_OPENING, _Ending.PREPOSITION, _Ending.OF)
        return Kind.NOUN if may_be_noun else Kind.OTHER
    if reading.kind is Kind.GERUND:
        may_modify = (phrase or before in _OPENING) and not after_noun
        return Kind.MODIFIER if may_modify else Kind.OTHER
    return reading.kind


def _concepts(phrase: _Phrase, max_words: int) -> Iterator[str]:
    """The nouns of a phrase, and its last words up to `max_words` of them."""
    if not phrase:
        return
    *before, (_, head) = phrase
    for _, reading in phrase:
        if reading.kind is Kind.NOUN:
            yield reading.lemma
            if reading.last:
                yield reading.last
    if head.kind is not Kind.NOUN:
        return
    words_so_far, tail = head.width, head.lemma
    for text, reading in reversed(before):
        words_so_far += reading.width
        if words_so_far > max_words:
            return
        tail = f"{text} {tail}"
        yield tail
