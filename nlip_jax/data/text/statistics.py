"""What a vocabulary makes of the captions of a data set."""

import logging
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np

from nlip_jax.data.failures import ReadError
from nlip_jax.data.members import Ranges
from nlip_jax.data.source import Source
from nlip_jax.data.text.tokenizer import Tokenizer


def sample_captions(source: Source, count: int) -> Iterator[str]:
    """Captions of `count` examples, or of all, evenly spaced; what cannot be read is left out."""
    members = Ranges(len(source), source.holes)
    size, failed = min(count, len(members)), 0
    for example_id in members.take(np.arange(size) * len(members) // size):
        try:
            yield source.caption(int(example_id))
        except ReadError:
            failed += 1
    if failed:
        logging.getLogger(__name__).warning(
            "%d of %d sampled captions cannot be read and are left out", failed, size
        )


@dataclass(frozen=True)
class TextStatistics:
    """Counts over captions.

    Attributes:
      lengths: `[n]` int64, tokens of each caption before it is cut, with [bos] and [eos].
      num_cut: captions longer than a row.
      num_unknown: pieces that the vocabulary has no id for.
    """

    lengths: np.ndarray
    num_cut: int
    num_unknown: int

    @property
    def unknown_share(self) -> float:
        """Of all pieces."""
        return self.num_unknown / max(int((self.lengths - 2).sum()), 1)


def measure(tokenizer: Tokenizer, captions: Iterable[str]) -> TextStatistics:
    """Encodes captions and counts."""
    unknown = tokenizer.special_ids.get("unk")
    lengths, num_unknown = [], 0
    for caption in captions:
        pieces = tokenizer.pieces(caption)
        lengths.append(len(pieces) + 2)
        num_unknown += pieces.count(unknown)
    lengths = np.array(lengths, np.int64)
    num_cut = int((lengths > tokenizer.context_length).sum())
    return TextStatistics(lengths=lengths, num_cut=num_cut, num_unknown=num_unknown)
