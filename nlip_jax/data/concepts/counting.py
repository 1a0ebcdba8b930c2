"""Counting texts by the million in bounded memory: sorted files of (text, count), merged.

As `data/prepare/counts.py` does with numbers; here the texts themselves are wanted in the end.
"""

import heapq
import itertools
import shutil
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

_LIMIT = 1 << 21  # texts held in memory; some 300 MB


@dataclass(frozen=True)
class Counted:
    """A text and how often it was counted."""

    text: str
    count: int


class TextCounts:
    """Counts texts, exactly; those that no longer fit into memory go to files.

    Args:
      folder: for the files; what is there already (of a run that was killed) is removed, and so are
        they by `close`.
      limit: different texts held in memory.
    """

    def __init__(self, folder: Path, *, limit: int = _LIMIT) -> None:
        self._folder, self._limit = folder, limit
        self._counts: Counter[str] = Counter()
        self._files: list[Path] = []
        self.close()

    def add(self, texts: Iterable[str]) -> None:
        """Counts each of the texts once; they hold no tab and no line break."""
        self._counts.update(texts)
        if len(self._counts) >= self._limit:
            self._spill()

    def sums(self) -> Iterator[Counted]:
        """All texts with their counts, sorted by text."""
        parts = [map(_parse, _lines(path)) for path in self._files]
        merged = heapq.merge(*parts, _sorted(self._counts), key=lambda item: item.text)
        for text, items in itertools.groupby(merged, key=lambda item: item.text):
            yield Counted(text, sum(item.count for item in items))

    def close(self) -> None:
        """Removes the files."""
        shutil.rmtree(self._folder, ignore_errors=True)
        self._files.clear()

    def _spill(self) -> None:
        self._folder.mkdir(parents=True, exist_ok=True)
        path = self._folder / f"{len(self._files):06d}.tsv"
        with path.open("w", encoding="utf-8") as file:
            file.writelines(f"{item.text}\t{item.count}\n" for item in _sorted(self._counts))
        self._files.append(path)
        self._counts.clear()


def _sorted(counts: Counter[str]) -> Iterator[Counted]:
    return (Counted(text, counts[text]) for text in sorted(counts))


def _lines(path: Path) -> Iterator[str]:
    with path.open(encoding="utf-8", newline="\n") as file:
        yield from file


def _parse(line: str) -> Counted:
    text, _, count = line.rpartition("\t")
    return Counted(text, int(count))
