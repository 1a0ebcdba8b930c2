"""Counts of n-grams in many short texts at once."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, eq=False)
class NGrams:
    """How often each n-gram of one length stands in each text; sorted by text, then n-gram.

    Attributes:
      text: `[m]` int64.
      gram: `[m]` int64 number of the n-gram.
      count: `[m]` int64, at least 1.
      num_grams: how many different ones there are.
      lengths: `[texts]` n-grams of each text, repeated ones counted as often as they occur.
    """

    text: np.ndarray
    gram: np.ndarray
    count: np.ndarray
    num_grams: int
    lengths: np.ndarray

    def keys(self, owners: np.ndarray) -> np.ndarray:
        """One number for each (owner of the text, n-gram), `[m]` int64."""
        return owners[self.text] * self.num_grams + self.gram


def count_ngrams(texts: Sequence[Sequence[str]], *, longest: int) -> tuple[NGrams, ...]:
    """Counts the n-grams of every text.

    Args:
      texts: each a list of tokens.
      longest: the largest n.

    Returns:
      For n = 1 to `longest`.
    """
    numbers: dict[str, int] = {}
    words = np.array(
        [numbers.setdefault(token, len(numbers)) for text in texts for token in text], np.int64
    )
    lengths = np.array([len(text) for text in texts], np.int64)
    text = np.repeat(np.arange(len(texts)), lengths)
    num_words, found = max(len(numbers), 1), []
    grams, num_grams = words, num_words
    for n in range(1, longest + 1):
        if n > 1:
            # An n-gram is a pair of an (n-1)-gram and the word behind it, in the same text.
            inside = text[n - 1 :] == text[: max(len(text) - n + 1, 0)]
            pairs = grams[:-1] * num_words + words[n - 1 :]
            whole = np.full(len(pairs), -1, np.int64)
            kept, whole[inside] = np.unique(pairs[inside], return_inverse=True)
            grams, num_grams = whole, max(len(kept), 1)
        starts = text[: len(grams)]
        there = grams >= 0
        keys, counts = np.unique(starts[there] * num_grams + grams[there], return_counts=True)
        found.append(
            NGrams(
                text=keys // num_grams,
                gram=keys % num_grams,
                count=counts,
                num_grams=num_grams,
                lengths=np.maximum(lengths - n + 1, 0),
            )
        )
    return tuple(found)


def look_up(keys: np.ndarray, sorted_keys: np.ndarray, values: np.ndarray) -> np.ndarray:
    """The value of each key, 0 where there is none.

    Args:
      keys: `[m]` to look up.
      sorted_keys: `[k]`, each once.
      values: `[k]`.
    """
    if not len(sorted_keys):
        return np.zeros(len(keys), values.dtype)
    place = np.minimum(np.searchsorted(sorted_keys, keys), len(sorted_keys) - 1)
    return np.where(sorted_keys[place] == keys, values[place], 0)
