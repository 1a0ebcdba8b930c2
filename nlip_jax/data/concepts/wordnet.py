"""WordNet's words: which are nouns, of what kind, and how often they are used as what.

`wordnet_words.tsv.gz` was made from WordNet 3.0 (Princeton University; LICENSE-WordNet). Lines are
`word <TAB> kind <TAB> noun <TAB> verb <TAB> other`. It has

* the lower-case nouns of one to three words without function words ("bird of prey"), and artifacts
  and foods that are written with a capital (T-shirt, Ferris wheel); of two-word nouns that are a
  kind of their last word only those where that word is mostly no noun, or the first one ends in
  -ing: "hot dog" is there, and "red fox" is an adjective and a noun;
* single verbs, adjectives and adverbs, so that they are known not to be nouns.

The kind of a noun is what most of its counted meanings are: "t" things (animals, artifacts, bodies,
events, food, groups, places, objects, phenomena, people, plants, shapes, substances), "d" doings
(noun.act), "x" anything else; "T" and "D": a kind of its last word. "-" is no noun. The counts are
of WordNet's tagged texts, empty where there is no such meaning.
"""

import functools
import gzip
import importlib.resources
from typing import NamedTuple

THING, DOING = "t", "d"
NO_NOUN = "-"


class Entry(NamedTuple):
    """What WordNet says of a word; counts are 0 also where there is no such meaning.

    Attributes:
      kind: "t", "d", "x" or "-", see above.
      includes_last: whether it is a kind of its last word.
      noun: times that it was counted as a noun.
      verb: likewise.
      other: as an adjective or adverb.
      may_be_other: whether it has a meaning as an adjective or adverb.
    """

    kind: str
    includes_last: bool
    noun: int
    verb: int
    other: int
    may_be_other: bool


@functools.cache
def words() -> dict[str, Entry]:
    """Every word of the file; read once."""
    packed = importlib.resources.files(__package__).joinpath("wordnet_words.tsv.gz").read_bytes()
    made = {}
    for line in gzip.decompress(packed).decode().splitlines():
        word, kind, *counts = line.split("\t")
        noun, verb, other = counts or ("", "", "")
        made[word] = Entry(
            kind=kind.lower(),
            includes_last=kind.isupper(),
            noun=int(noun or 0),
            verb=int(verb or 0),
            other=int(other or 0),
            may_be_other=other != "",
        )
    return made


def is_noun(word: str) -> bool:
    """Whether WordNet has a noun of that spelling."""
    entry = words().get(word)
    return entry is not None and entry.kind != NO_NOUN
