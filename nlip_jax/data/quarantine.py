"""Keeps account of the examples that could not be read: counts, a list, and a limit."""

import json
import logging
import os
from collections import Counter, deque
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from nlip_jax.data.failures import FAILURES, KINDS
from nlip_jax.data.pipeline import RowInfo
from nlip_jax.data.source import Source
from nlip_jax.errors import RunError

_LOG = logging.getLogger(__name__)
_WINDOW = 10_000  # rows whose share of failures is watched
_ENOUGH = 1_000  # rows before that share is judged
_SHOWN = 5  # kinds and shards in a summary
_LONGEST = 1 << 16  # bytes of a line, and more than any has


class Quarantine:
    """The failures of one process in one run.

    Each failing example stands once in the file, whatever was killed and repeated.

    Args:
      path: of quarantine.jsonl; its lines have example_id, kind, shard and key.
      source: knows the places of examples.
      max_bad_fraction: share of the last 10,000 rows that may fail.
      counts: failures by kind so far, where a run goes on.
      window: rows that were watched last and failures among them, where a run goes on.
    """

    def __init__(
        self,
        path: Path,
        *,
        source: Source,
        max_bad_fraction: float,
        counts: dict[str, int] | None = None,
        window: tuple[int, int] = (0, 0),
    ) -> None:
        self.path, self._source, self._limit = path, source, max_bad_fraction
        self.counts = Counter(counts or {})
        # A bit for each example, of memory that comes when it is written to: of billions, more may
        # fail than a set could hold.
        self._listed = np.zeros(-(-len(source) // 8), np.uint8)
        self._told: set[str] = set()
        self._window = deque([tuple(window)])  # (rows, failures) of the last batches
        self._read, self._bad = window  # their sums
        _cut_half_line(path)
        for entry in read_quarantine(path):
            self._mark(entry["example_id"])

    def summary(self) -> str:
        """One line on all that was listed, by kind and by shard; empty if nothing was."""
        kinds, shards = Counter(), Counter()
        for entry in read_quarantine(self.path):
            kinds[entry["kind"]] += 1
            shards[entry["shard"]] += 1
        if not kinds:
            return ""
        return (
            f"{kinds.total()} examples could not be read: {_most(kinds)}; by shard: "
            f"{_most(shards)}; {self.path} lists them"
        )

    @property
    def window(self) -> tuple[int, int]:
        """Rows that are watched, and failures among them."""
        return self._read, self._bad

    def add(self, rows: RowInfo, *, in_training: bool = True) -> None:
        """Takes down what failed in the rows of one batch.

        Args:
          rows: of the batch.
          in_training: whether to count it; passes over the data set are only listed, because a
            killed one does not repeat what it has finished.

        Raises:
          RunError: too many of the last rows failed.
        """
        self._watch(len(rows.ids), int(rows.is_replaced.sum()))
        failed = rows.failed_id >= 0
        if not failed.any():
            return
        kinds = [KINDS[kind] for kind in rows.failed_kind[failed]]
        if in_training:
            self.counts.update(kinds)
        self._list(rows.failed_id[failed].tolist(), kinds)
        enough = self._read >= min(_ENOUGH, len(self._source))
        if enough and self._bad > self._limit * self._read:
            raise RunError(
                f"{self._bad} of the last {self._read} examples could not be read, more than "
                f"config.data.max_bad_fraction={self._limit:g} allows; the last of them: "
                f"{kinds[-1]} ({FAILURES[kinds[-1]]}). {self.path} lists them; mend the data or "
                "raise the limit, and run the same command again"
            )

    def _watch(self, size: int, bad: int) -> None:
        """Moves the window on by a batch."""
        self._window.append((size, bad))
        self._read, self._bad = self._read + size, self._bad + bad
        while self._read - self._window[0][0] >= _WINDOW:
            size, bad = self._window.popleft()
            self._read, self._bad = self._read - size, self._bad - bad

    def _list(self, example_ids: list[int], kinds: list[str]) -> None:
        lines = []
        for example_id, kind in zip(example_ids, kinds, strict=True):
            if not self._mark(example_id):
                continue
            place = self._source.place(self._source.image_id(example_id))
            if kind not in self._told:
                _LOG.warning(
                    "an example was skipped: %s (%s): %s in %s; further ones of this kind only go "
                    "to %s", *(kind, FAILURES[kind], place.key, place.shard, self.path.name),
                )
                self._told.add(kind)
            entry = {"example_id": example_id, "kind": kind, "shard": place.shard, "key": place.key}
            lines.append(json.dumps(entry) + "\n")
        if lines:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with self.path.open("a", encoding="utf-8") as file:
                file.writelines(lines)

    def _mark(self, example_id: int) -> bool:
        """Notes that an example is listed; False if it was already."""
        place, bit = example_id >> 3, np.uint8(1 << (example_id & 7))
        was_listed = bool(self._listed[place] & bit)
        self._listed[place] |= bit
        return not was_listed


def _most(counts: Counter) -> str:
    """The largest counts, and how many others there are."""
    shown = ", ".join(f"{name} {count}" for name, count in counts.most_common(_SHOWN))
    others = len(counts) - _SHOWN
    return f"{shown} and {others} others" if others > 0 else shown


def read_quarantine(path: Path) -> Iterator[dict[str, Any]]:
    """The lines of a quarantine.jsonl; one that a kill cut off is left out."""
    if not path.exists():
        return
    with path.open(encoding="utf-8") as file:
        yield from (json.loads(line) for line in file if line.endswith("\n"))


def _cut_half_line(path: Path) -> None:
    """Takes away the end of a file that a kill left without its end of line."""
    if not path.exists():
        return
    with path.open("rb+") as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(max(0, size - _LONGEST))
        tail = file.read()
        file.truncate(size - len(tail) + tail.rfind(b"\n") + 1)
