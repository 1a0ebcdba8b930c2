"""What a tokenizer is to the rest of the house: captions as rows of ids, and back.

Id 0 is padding and nothing else: models take `tokens != 0` for the mask, and the "eos" pool takes
the last token of it.
"""

import functools
from collections.abc import Iterable, Sequence
from typing import Any, Protocol

import numpy as np

from nlip_jax.errors import UsageError

PAD = 0

# Longer captions are cut before they are looked at: a row never needs this much text.
_MAX_CHARACTERS_PER_TOKEN = 64


class Tokenizer(Protocol):
    """Captions to rows `[bos] pieces [eos] 0 0 ...` and back; picklable, shared by threads."""

    context_length: int  # ids in a row, `l`
    vocab_size: int  # number of ids, padding included
    fingerprint: str  # hexadecimal; another value whenever vocabulary or settings differ
    # By name: pad (always 0), bos, eos and, where there are, unk, mask, unused (in no row).
    special_ids: dict[str, int]
    id_offset: int  # what was added to the ids that the vocabulary was published with

    def pieces(self, text: str) -> list[int]:
        """Ids of a caption, without [bos] and [eos], however many they are."""
        ...

    def encode(self, text: str) -> np.ndarray:
        """One caption as a row `[l]` int32; what does not fit is cut before [eos]."""
        ...

    def encode_batch(self, texts: Sequence[str]) -> np.ndarray:
        """Captions as rows, `[n, l]` int32."""
        ...

    def decode(self, ids: Iterable[int]) -> str:
        """The text of a row up to its [eos], as the vocabulary spells it."""
        ...

    def words(self, row: np.ndarray) -> np.ndarray:
        """Which word each token belongs to.

        Args:
          row: `[l]` int32, as of `encode`.

        Returns:
          `[l]` int32, from 1 for the first word; 0 on special ids and padding.
        """
        ...


class RowTokenizer:
    """What the tokenizers of this package share; subclasses split text and join pieces.

    Args:
      made_from: first argument of the subclass, from which a pickled copy is made again.
      context_length: ids in a row; at least 2, for [bos] and [eos].
      vocab_size: as of `Tokenizer`.
      special_ids: as of `Tokenizer`.
      fingerprint: as of `Tokenizer`.

    Raises:
      UsageError: no room for [bos] and [eos].
    """

    id_offset = 0

    def __init__(
        self,
        made_from: Any,
        *,
        context_length: int,
        vocab_size: int,
        special_ids: dict[str, int],
        fingerprint: str,
    ) -> None:
        if context_length < 2:
            raise UsageError(f"context_length={context_length} has no room for [bos] and [eos]")
        self._made_from = made_from
        self.context_length = context_length
        self.vocab_size = vocab_size
        self.special_ids = special_ids
        self.fingerprint = fingerprint
        self._is_special = np.zeros(vocab_size, bool)
        self._is_special[list(special_ids.values())] = True

    def __reduce__(self):
        remake = functools.partial(type(self), context_length=self.context_length)
        return remake, (self._made_from,)

    def _split(self, text: str) -> list[int]:
        """Ids of the pieces of any text; never [bos], [eos], padding or mask."""
        raise NotImplementedError

    def _join(self, ids: list[int]) -> str:
        """The text of pieces."""
        raise NotImplementedError

    def _starts(self, row: np.ndarray) -> np.ndarray:
        """Whether a token begins a word, `[l]` bool; of no meaning on special ids."""
        raise NotImplementedError

    def pieces(self, text: str) -> list[int]:
        """Ids of a caption, without [bos] and [eos], however many they are."""
        return self._split(text[: self.context_length * _MAX_CHARACTERS_PER_TOKEN])

    def encode(self, text: str) -> np.ndarray:
        """One caption as a row `[l]` int32; what does not fit is cut before [eos]."""
        pieces = self.pieces(text)[: self.context_length - 2]
        row = np.full(self.context_length, PAD, np.int32)
        row[: len(pieces) + 2] = [self.special_ids["bos"], *pieces, self.special_ids["eos"]]
        return row

    def encode_batch(self, texts: Sequence[str]) -> np.ndarray:
        """Captions as rows, `[n, l]` int32."""
        rows = np.empty((len(texts), self.context_length), np.int32)
        for i, text in enumerate(texts):
            rows[i] = self.encode(text)
        return rows

    def decode(self, ids: Iterable[int]) -> str:
        """The text of a row up to its [eos], as the vocabulary spells it."""
        ids, eos = [int(i) for i in ids], self.special_ids["eos"]
        ids = ids[: ids.index(eos)] if eos in ids else ids
        return self._join([i for i in ids if i not in (PAD, self.special_ids["bos"])])

    def words(self, row: np.ndarray) -> np.ndarray:
        """Which word each token belongs to, `[l]` int32 from 1; 0 on special ids and padding."""
        special = self._is_special[row]
        starts = ~special & self._starts(row)
        starts[np.argmin(special)] = True  # the first piece, whatever it is
        return np.where(special, 0, np.cumsum(starts)).astype(np.int32)
