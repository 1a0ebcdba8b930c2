"""Concepts that an image shows and its text does not name."""

import functools
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from nlip_jax.data.concepts.plurals import singular
from nlip_jax.data.duplicates.words import words_of


@dataclass(frozen=True, eq=False)
class MissingConcepts:
    """Compares the concepts found for images with their texts.

    A concept is there if all of its words are, in singular or plural, wherever they stand; a
    synonym is another word.

    Attributes:
      words: of each concept.
      numbers: `[n, k]` integers, the concepts of each example from 1 on, the likeliest first; 0 for
        none. An example without any was not looked at.
    """

    words: tuple[str, ...]
    numbers: np.ndarray

    @functools.cached_property
    def _concepts(self) -> tuple[dict[str, int], np.ndarray]:
        """Numbers of all words of concepts; those of each concept, `[q + 1, m]`, -1 for none."""
        found = words_of(pa.array(self.words))
        number: dict[str, int] = {}
        own = [number.setdefault(singular(word), len(number)) for word in found.distinct]
        each = np.split(np.array(own, np.int32)[found.places], found.starts[1:-1])
        table = np.full((len(self.words) + 1, max(map(len, each))), -1, np.int32)
        for row, numbers in zip(table[1:], each, strict=True):
            row[: len(numbers)] = numbers
        return number, table

    def __call__(self, ids: np.ndarray, captions: pa.Array) -> pa.Array:
        """The concepts that each caption lacks, a list of strings each.

        Args:
          ids: `[k]` examples.
          captions: `[k]` strings; null where one cannot be read.

        Returns:
          `[k]` lists; null where the image or the caption is not known.
        """
        number, table = self._concepts
        wanted = np.asarray(self.numbers[ids], np.int64)  # [k, concepts]
        said = words_of(captions)
        known = np.array([number.get(singular(word), -1) for word in said.distinct], np.int64)
        words = known[said.places]
        row = np.repeat(np.arange(len(ids)), np.diff(said.starts))[words >= 0]
        there = np.sort(row * len(number) + words[words >= 0])

        needed = table[wanted]  # [k, concepts, words]
        keys = np.arange(len(ids))[:, None, None] * len(number) + needed
        is_there = (needed < 0) | _contains(there, keys)
        lacking = (wanted > 0) & ~is_there.all(2)

        unknown = ~(wanted > 0).any(1) | captions.is_null().to_numpy(zero_copy_only=False)
        lacking[unknown] = False
        offsets = np.concatenate([[0], np.cumsum(lacking.sum(1))]).astype(np.int32)
        values = pa.array(self.words).take(pa.array(wanted[lacking] - 1))
        return pa.ListArray.from_arrays(offsets, values, mask=pa.array(unknown))


def _contains(ordered: np.ndarray, keys: np.ndarray) -> np.ndarray:
    """Whether each key is among the ordered ones."""
    if not len(ordered):
        return np.zeros(keys.shape, np.bool_)
    places = np.minimum(np.searchsorted(ordered, keys), len(ordered) - 1)
    return ordered[places] == keys
