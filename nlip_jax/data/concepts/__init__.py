"""Concepts: words for what images show, found in captions or given as a file.

A tagger finds the nouns and short noun phrases of captions, `mining.mine` keeps the frequent ones,
and `ConceptVocabulary` numbers them and holds their tokens. The rules are for English.
"""

from nlip_jax.data.concepts.mining import Mined, mine
from nlip_jax.data.concepts.rules import RuleTagger, folded_words
from nlip_jax.data.concepts.tagger import Tagger
from nlip_jax.data.concepts.vocabulary import (
    ConceptVocabulary,
    make_vocabulary,
    read_concepts,
    write_concepts,
)

__all__ = [
    "ConceptVocabulary",
    "Mined",
    "RuleTagger",
    "Tagger",
    "folded_words",
    "make_vocabulary",
    "mine",
    "read_concepts",
    "write_concepts",
]
