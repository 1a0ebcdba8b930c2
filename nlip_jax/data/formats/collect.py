"""Gathers what a scan finds."""

import hashlib
from collections import Counter

import numpy as np

from nlip_jax.data.formats.base import Scan
from nlip_jax.data.formats.texts import Texts
from nlip_jax.data.storage import Status

_PIECE = 1 << 16  # rows that are held as tuples; as arrays they take a tenth of the memory


class Collector:
    """The rows of one shard as they are found, and the counts of what is left out.

    Args:
      dtype: of a row.
    """

    def __init__(self, dtype: np.dtype) -> None:
        self._dtype = dtype
        self._rows, self._pieces = [], [np.zeros(0, dtype)]
        self._captions, self._caption_pieces = [], [np.zeros(0, np.uint32)]
        self._digest = hashlib.blake2b(digest_size=16)
        self._complaint = ""
        self.counts = Counter()

    def add(self, row: tuple, *, key: str, texts: Texts) -> None:
        """Keeps an image that has captions, and counts one that has none."""
        if texts.problem:
            self.leave_out(texts.problem, f"{key}: {texts.complaint}")
            return
        captions = texts.chosen
        self._rows.append(row)
        self._captions.append(len(captions))
        self.counts["images"] += 1
        self.counts["captions"] += len(captions)
        # Every key counts: a source may draw from any of them.
        words = [word for found in texts.by_key for word in (str(len(found)), *found)]
        self._digest.update("\0".join([key, *words, ""]).encode("utf-8", "surrogatepass"))
        if len(self._rows) == _PIECE:
            self._pack()

    def leave_out(self, count: str, complaint: str) -> None:
        """Counts what is of no use; the first complaint is kept."""
        self.counts[count] += 1
        self._complaint = self._complaint or complaint.encode("utf-8", "replace").decode()

    def scan(self, status: Status) -> Scan:
        """All that was gathered."""
        self._pack()
        return Scan(
            size=status.size,
            modified_ns=status.modified_ns,
            rows=np.concatenate(self._pieces),
            captions=np.concatenate(self._caption_pieces),
            digest=self._digest.hexdigest(),
            counts=self.counts,
            complaint=self._complaint,
        )

    def _pack(self) -> None:
        self._pieces.append(np.array(self._rows, self._dtype))
        self._caption_pieces.append(np.array(self._captions, np.uint32))
        self._rows, self._captions = [], []
