"""Counting things by the million in bounded memory: sorted files of (number, count), merged.

Each worker writes what it saw as a sorted file; the files are merged a slice of the 64-bit numbers
at a time, so memory depends on the size of a slice and not on the data.
"""

import io
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from nlip_jax.files import write_atomically

ENTRY = np.dtype([("number", "<u8"), ("count", "<u4")])
_SLICE = 1 << 20  # entries merged at once; about 100 MB of memory

Slice = tuple[np.ndarray, np.ndarray]  # numbers [k] uint64, sorted; counts [k] int64


def write_counts(path: str | os.PathLike, numbers: np.ndarray) -> None:
    """Counts numbers into a file.

    Args:
      path: a .npy file of `ENTRY`, there whole or not at all.
      numbers: `[n]` uint64, in any order.
    """
    unique, counts = np.unique(numbers, return_counts=True)
    entries = np.empty(len(unique), ENTRY)
    entries["number"], entries["count"] = unique, counts
    file = io.BytesIO()
    np.save(file, entries)
    write_atomically(path, file.getbuffer())


def merge(paths: Sequence[Path]) -> Iterator[Slice]:
    """The sums of the counts of many files, a slice of the numbers at a time, in order."""
    total = sum(len(_map(path)) for path in paths)
    slices = total // _SLICE + 1
    for index in range(slices):
        low, high = index * 2**64 // slices, (index + 1) * 2**64 // slices - 1
        parts = [_part(_map(path), low, high) for path in paths]
        entries = np.concatenate([np.zeros(0, ENTRY), *parts])
        entries = entries[np.argsort(entries["number"], kind="stable")]
        numbers, starts = np.unique(entries["number"], return_index=True)
        counts = entries["count"].astype(np.int64)
        yield numbers, np.add.reduceat(counts, starts) if len(starts) else counts


def more_often_than(paths: Sequence[Path], limit: int) -> np.ndarray:
    """Numbers that occur more than `limit` times, `[k]` uint64, sorted."""
    return _collect(numbers[counts > limit] for numbers, counts in merge(paths))


def at_least(paths: Sequence[Path], limit: int) -> np.ndarray:
    """Numbers that occur `limit` times or more, `[k]` uint64, sorted."""
    return more_often_than(paths, limit - 1)


def most_frequent(paths: Sequence[Path], limit: int) -> np.ndarray:
    """The `limit` numbers that occur most, `[k]` uint64, sorted; of equals the smaller ones."""
    numbers_with = Counter()
    for _, counts in merge(paths):
        numbers_with.update(dict(zip(*_histogram(counts), strict=True)))
    room, last = limit, 0
    for count in sorted(numbers_with, reverse=True):
        if numbers_with[count] > room:
            last = count  # only some of those that occur so often find room
            break
        room -= numbers_with[count]

    def chosen() -> Iterator[np.ndarray]:
        left = room
        for numbers, counts in merge(paths):
            ties = np.flatnonzero(counts == last)[:left]
            left -= len(ties)
            kept = counts > last
            kept[ties] = True
            yield numbers[kept]

    return _collect(chosen())


def _histogram(counts: np.ndarray) -> tuple[list[int], list[int]]:
    values, numbers = np.unique(counts, return_counts=True)
    return values.tolist(), numbers.tolist()


def _collect(parts: Iterator[np.ndarray]) -> np.ndarray:
    return np.concatenate([np.zeros(0, np.uint64), *parts])


def _map(path: Path) -> np.ndarray:
    return np.load(path, mmap_mode="r")


def _part(entries: np.ndarray, low: int, high: int) -> np.ndarray:
    """Entries with numbers in [low, high]."""
    numbers = entries["number"]
    start = np.searchsorted(numbers, np.uint64(low), side="left")
    stop = np.searchsorted(numbers, np.uint64(high), side="right")
    return entries[start:stop]
