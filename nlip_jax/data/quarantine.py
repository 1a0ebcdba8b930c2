"""Keeps account of the examples that could not be read: counts, a list, and a limit."""

import json
import logging
from collections import Counter, deque
from pathlib import Path

import numpy as np

from nlip_jax.data.failures import FAILURES, KINDS
from nlip_jax.data.pipeline import RowInfo
from nlip_jax.data.source import Source
from nlip_jax.errors import RunError
from nlip_jax.files import write_atomically

_LOG = logging.getLogger(__name__)
_WINDOW = 10_000  # rows whose share of failures is watched
_ENOUGH = 1_000  # rows before that share is judged


class Quarantine:
    """The failures of one process in one run.

    Each failing example stands once in the file, whatever was killed and repeated.

    Args:
      path: of quarantine.jsonl; its lines have example_id, kind, shard and key.
      source: knows the places of examples.
      max_bad_fraction: share of the last 10,000 rows that may fail.
      counts: failures by kind so far, where a run goes on.
    """

    def __init__(
        self,
        path: Path,
        *,
        source: Source,
        max_bad_fraction: float,
        counts: dict[str, int] | None = None,
    ) -> None:
        self.path, self._source, self._limit = path, source, max_bad_fraction
        self.counts = Counter(counts or {})
        self._listed = {entry["example_id"] for entry in read_quarantine(path)}
        self._told: set[str] = set()
        self._window: deque[tuple[int, int]] = deque()  # (rows, failures) of the last batches

    def add(self, rows: RowInfo, *, in_training: bool = True) -> None:
        """Takes down what failed in the rows of one batch.

        Args:
          rows: of the batch.
          in_training: whether to count it; passes over the data set are only listed, because a
            killed one does not repeat what it has finished.

        Raises:
          RunError: too many of the last rows failed.
        """
        failed = rows.failed_id >= 0
        for example_id, kind in zip(rows.failed_id[failed], rows.failed_kind[failed], strict=True):
            self.counts[KINDS[kind]] += in_training
            self._list(int(example_id), KINDS[kind])
        self._window.append((len(rows.ids), int(failed[:, 0].sum())))
        while sum(size for size, _ in self._window) - self._window[0][0] >= _WINDOW:
            self._window.popleft()
        read, bad = np.sum(self._window, axis=0)
        if failed.any() and read >= min(_ENOUGH, len(self._source)) and bad > self._limit * read:
            kind = KINDS[rows.failed_kind[failed][-1]]
            raise RunError(
                f"{bad} of the last {read} examples could not be read, more than "
                f"config.data.max_bad_fraction={self._limit:g} allows; the last of them: {kind} "
                f"({FAILURES[kind]}). {self.path} lists them; mend the data or raise the limit, "
                "and run the same command again"
            )

    def _list(self, example_id: int, kind: str) -> None:
        if example_id in self._listed:
            return
        place = self._source.place(self._source.image_id(example_id))
        if kind not in self._told:
            _LOG.warning(
                "an example was skipped: %s (%s): %s in %s; further ones of this kind only go to "
                "%s", *(kind, FAILURES[kind], place.key, place.shard, self.path.name),
            )
            self._told.add(kind)
        self._listed.add(example_id)
        entry = {"example_id": example_id, "kind": kind, "shard": place.shard, "key": place.key}
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(entry) + "\n")


def read_quarantine(path: Path) -> list[dict]:
    """The lines of a quarantine.jsonl; one that a kill cut off is left out, and from the file."""
    if not path.exists():
        return []
    text = path.read_text(encoding="utf-8")
    whole = text[: text.rfind("\n") + 1]
    if whole != text:
        write_atomically(path, whole.encode())
    return [json.loads(line) for line in whole.splitlines()]
