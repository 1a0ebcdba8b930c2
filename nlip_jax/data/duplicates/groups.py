"""Groups of equal and of nearly equal texts.

Texts whose signatures agree in one of 16 bands of 4 places are compared (locality-sensitive
hashing: Indyk and Motwani, 1998): of pairs with a similarity of 0.7 99 % are, of those with 0.8
99.98 %. Pairs that are similar enough belong together, and so do those that others join. Memory
is some 30 bytes a text, whatever the texts; the signatures are read from disk.
"""

import itertools
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from nlip_jax.data.duplicates.signatures import PLACES, similarity

_BAND = np.dtype("<u4")  # 4 places of a signature
_BANDS = PLACES // _BAND.itemsize
_PART = 1 << 20  # texts sorted together
_READ = 1 << 16  # signatures read, or pairs compared, together
_PAIRS = 1 << 20  # for which the signatures are gone through once


@dataclass(frozen=True, eq=False)
class Groups:
    """Which texts belong together.

    Attributes:
      first: `[m]` int64, the first text of the group of each; its own number where it is alone.
      num_equal: texts that are equal to an earlier one.
    """

    first: np.ndarray
    num_equal: int


def group_texts(
    numbers: np.ndarray,
    signatures: Iterable[np.ndarray],
    *,
    least: float,
    file: Path,
) -> Groups:
    """Groups texts, the same on every machine.

    Args:
      numbers: `[m]` uint64, of `text_numbers`.
      signatures: `[k, PLACES]` uint8 of the same texts, in the same order, a part at a time.
      least: similarity from which two texts belong together; above 1 only equal ones do.
      file: for the signatures of texts that are not equal to an earlier one; removed at the end.
    """
    equal = first_of_equals(numbers)
    del numbers  # where the caller keeps them not, their memory is free from here on
    different = np.flatnonzero(equal == np.arange(len(equal)))
    num_equal = len(equal) - len(different)
    if least > 1 or len(different) < 2:
        return Groups(first=equal, num_equal=num_equal)
    try:
        _write(file, signatures, equal)
        first = _join_similar(file, len(different), least=least)
    finally:
        file.unlink(missing_ok=True)
    rank = np.searchsorted(different, equal)
    return Groups(first=different[first[rank]], num_equal=num_equal)


def first_of_equals(keys: np.ndarray) -> np.ndarray:
    """The first place of the key at each place, `[m]` unsigned integers -> `[m]` int64."""
    first = np.empty(len(keys), np.int64)
    for places in _parts(keys):
        order, begins = _sort(keys[places])
        runs = np.diff(np.append(begins, len(order)))
        ordered = places[order]
        first[ordered] = np.repeat(ordered[begins], runs)
    return first


def _parts(keys: np.ndarray) -> Iterator[np.ndarray]:
    """Places by ranges of their keys, few enough together to be sorted in memory, ascending."""
    count = -(-len(keys) // _PART)
    if count <= 1:
        yield np.arange(len(keys))
        return
    # Keys are hashes: every range has about as many.
    upper = (keys >> np.uint8(keys.itemsize * 8 - 16)).astype(np.uint16)
    bounds = np.linspace(0, 1 << 16, count + 1).astype(np.int64)
    for low, high in itertools.pairwise(bounds):
        yield np.flatnonzero((upper >= low) & (upper < high))


def _sort(keys: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The order of keys, equal ones as they stood, and where in it each key begins."""
    order = np.argsort(keys, kind="stable")
    ordered = keys[order]
    is_first = np.ones(len(keys), np.bool_)
    np.not_equal(ordered[1:], ordered[:-1], out=is_first[1:])
    return order, np.flatnonzero(is_first)


def _write(file: Path, signatures: Iterable[np.ndarray], equal: np.ndarray) -> None:
    start = 0
    with file.open("wb") as out:
        for part in signatures:
            stop = start + len(part)
            keep = equal[start:stop] == np.arange(start, stop)
            out.write(np.ascontiguousarray(part[keep]).data)
            start = stop
    if start != len(equal):
        raise ValueError(f"{start} signatures of {len(equal)} texts")


def _join_similar(file: Path, count: int, *, least: float) -> np.ndarray:
    """The first of the group of each of `count` different texts, `[count]` int32 or int64."""
    first = np.arange(count, dtype=np.int32 if count < 2**31 else np.int64)
    for band in range(_BANDS):
        keys = _read_band(file, count, band)
        pairs = (
            places[pair] for places in _parts(keys) for pair in _candidates(keys[places])
        )
        for some in _gather(pair[:, first[pair[0]] != first[pair[1]]] for pair in pairs):
            _join(first, *some[:, _are_similar(file, count, some, least=least)])
        _flatten(first)
    return first


def _gather(pairs: Iterator[np.ndarray]) -> Iterator[np.ndarray]:
    """Puts pairs together, so that the file is gone through once for many."""
    waiting, count = [], 0
    for some in pairs:
        waiting.append(some)
        count += some.shape[1]
        if count >= _PAIRS:
            yield np.concatenate(waiting, axis=1)
            waiting, count = [], 0
    if count:
        yield np.concatenate(waiting, axis=1)


def _are_similar(file: Path, count: int, pairs: np.ndarray, *, least: float) -> np.ndarray:
    """Whether the texts of each pair are similar enough, `[2, k]` -> `[k]` bool."""
    needed = np.sort(pairs, axis=None)
    needed = needed[np.append(True, needed[1:] != needed[:-1])]
    table = _read_rows(file, count, needed)
    found = np.empty(pairs.shape[1], np.bool_)
    for start in range(0, len(found), _READ):
        a, b = np.searchsorted(needed, pairs[:, start : start + _READ])
        found[start : start + _READ] = similarity(table[a], table[b]) >= least
    return found


def _read_rows(file: Path, count: int, rows: np.ndarray) -> np.ndarray:
    """Some signatures, `[k, PLACES]`, by their numbers in ascending order.

    Read block by block: pages of a mapped file would count as memory of the process.
    """
    table = np.empty((len(rows), PLACES), np.uint8)
    with file.open("rb") as source:
        for start in range(0, count, _READ):
            low, high = np.searchsorted(rows, [start, start + _READ])
            if low < high:
                source.seek(start * PLACES)
                block = np.fromfile(source, np.uint8, _READ * PLACES).reshape(-1, PLACES)
                table[low:high] = block[rows[low:high] - start]
    return table


def _read_band(file: Path, count: int, band: int) -> np.ndarray:
    keys = np.empty(count, _BAND)
    with file.open("rb") as source:
        for start in range(0, count, _READ):
            rows = np.fromfile(source, _BAND, _READ * _BANDS).reshape(-1, _BANDS)
            keys[start : start + len(rows)] = rows[:, band]
    return keys


def _candidates(keys: np.ndarray) -> Iterator[np.ndarray]:
    """Pairs of places with equal keys, `[2, k]`: each with the first of its key and the one before.

    So that a key which many texts share costs no more than its texts.
    """
    order, begins = _sort(keys)
    runs = np.diff(np.append(begins, len(order)))
    leader = np.repeat(order[begins], runs)
    follows = np.ones(len(order), np.bool_)
    follows[begins] = False
    behind = np.flatnonzero(follows)
    for start in range(0, len(behind), _READ):
        some = behind[start : start + _READ]
        yield np.stack([leader[some], order[some]])
        later = some[leader[some] != order[some - 1]]
        yield np.stack([order[later - 1], order[later]])


def _join(first: np.ndarray, a: np.ndarray, b: np.ndarray) -> None:
    """Makes one group of the groups of each pair; a group's name is its first member."""
    while len(a):
        a, b = _roots(first, a), _roots(first, b)
        apart = a != b
        low, high = np.minimum(a, b)[apart], np.maximum(a, b)[apart]
        np.minimum.at(first, high, low.astype(first.dtype))
        a, b = low, high


def _roots(first: np.ndarray, places: np.ndarray) -> np.ndarray:
    while True:
        up = first[places]
        if (up == places).all():
            return places
        places = up


def _flatten(first: np.ndarray) -> None:
    """Points every text at the first of its group itself."""
    while True:
        up = first[first]
        if np.array_equal(up, first):
            return
        first[:] = up
