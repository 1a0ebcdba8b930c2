"""The words of many texts at once: Arrow's compiled string functions do the work."""

import functools
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from nlip_jax.data.prepare.words import number_of

MAX_CHARACTERS = 2000  # of a text that are looked at: captions may be whole web pages

_NO_WORD = r"[^\p{L}\p{M}\p{N}]+"  # neither letters, their marks, nor digits, of any script


@dataclass(frozen=True, eq=False)
class Words:
    """The words of `n` texts, one after another.

    Attributes:
      distinct: every word that occurs, once.
      places: `[w]` int32, the place in `distinct` of each word.
      starts: `[n + 1]` int64, where the words of each text begin; every text has one or more.
    """

    distinct: list[str]
    places: np.ndarray
    starts: np.ndarray

    @functools.cached_property
    def numbers(self) -> np.ndarray:
        """`[w]` uint64, the number that stands for each word, the same on every machine."""
        return np.fromiter(map(number_of, self.distinct), np.uint64)[self.places]


def words_of(texts: pa.Array) -> Words:
    """Splits texts into words: runs of letters and digits, without regard to case and width.

    A text without any counts as one word, and so does a null.

    Args:
      texts: `[n]` strings.
    """
    cut = pc.utf8_slice_codeunits(pc.fill_null(texts, ""), 0, MAX_CHARACTERS)
    lower = pc.utf8_lower(pc.utf8_normalize(cut, form="NFKC"))
    plain = pc.utf8_trim_whitespace(pc.replace_substring_regex(lower, _NO_WORD, " "))
    plain = pc.if_else(pc.equal(plain, ""), pc.utf8_trim_whitespace(lower), plain)
    lists = pc.split_pattern(plain, " ")
    encoded = pc.dictionary_encode(lists.flatten())
    starts = lists.offsets.to_numpy().astype(np.int64)
    return Words(
        distinct=encoded.dictionary.to_pylist(),
        places=encoded.indices.to_numpy(),
        starts=starts - starts[0],
    )
