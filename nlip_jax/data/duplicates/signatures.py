"""Numbers that tell whether texts are equal, and how similar they are.

Similarity is that of the sets of a text's words and pairs of neighbouring words (Jaccard: shared
over all). Its estimate is MinHash (Broder, 1997): the share of equal places in two signatures,
of which 8 bits a place are kept (Li and Koenig, 2010).
"""

import numpy as np

from nlip_jax.data.duplicates.words import Words

PLACES = 64  # bytes of a signature: a similarity of 0.7 is estimated to within 0.06
_BLOCK = 4096  # texts worked on together, so that their numbers stay in the cache
_ODD = np.uint64(0x9E3779B97F4A7C15)  # 2^64 / golden ratio
_SHIFT = np.uint64(32)
_SEED = 20230211


def _mix(x: np.ndarray) -> np.ndarray:
    """SplitMix64's finaliser."""
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


def text_numbers(words: Words) -> np.ndarray:
    """A number for each sequence of words, `[n]` uint64: equal texts have the same.

    Any two of 10 million different ones have the same with probability 3e-6.
    """
    place = np.arange(len(words.numbers), dtype=np.int64)
    place -= np.repeat(words.starts[:-1], np.diff(words.starts))
    moved = _mix(words.numbers + _mix((place + 1).astype(np.uint64) * _ODD))
    return np.add.reduceat(moved, words.starts[:-1])


def signatures(words: Words) -> np.ndarray:
    """The signature of each text, `[n, PLACES]` uint8."""
    count = len(words.starts) - 1
    found = np.empty((count, PLACES), np.uint8)
    for start in range(0, count, _BLOCK):
        stop = min(start + _BLOCK, count)
        first, last = words.starts[start], words.starts[stop]
        starts = words.starts[start : stop + 1] - first
        found[start:stop] = _signatures(*_shingles(words.numbers[first:last], starts))
    return found


def _shingles(numbers: np.ndarray, starts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Words, and pairs of neighbours, of each text: their numbers, and where each text begins."""
    pairs = numbers[:-1] * _ODD + numbers[1:]
    # A text of k words has 2 k - 1: word, pair, word, pair, ..., word.
    both = np.empty(2 * len(numbers), np.uint64)
    both[::2] = numbers
    both[1:-1:2] = pairs
    inside = np.ones(len(both), np.bool_)
    inside[2 * starts[1:] - 1] = False  # the pair of a text's last word with the next text's first
    return _mix(both[inside]), 2 * starts[:-1] - np.arange(len(starts) - 1)


def _signatures(shingles: np.ndarray, starts: np.ndarray) -> np.ndarray:
    rng = np.random.default_rng(_SEED)
    factors = rng.integers(0, 2**63, PLACES, np.uint64) * np.uint64(2) + np.uint64(1)
    found = np.empty((len(starts), PLACES), np.uint8)
    for place, factor in enumerate(factors):
        upper = ((shingles * factor) >> _SHIFT).astype(np.uint32)
        found[:, place] = np.minimum.reduceat(upper, starts) & np.uint32(0xFF)
    return found


def similarity(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """The similarities that two sets of signatures tell, `[k, PLACES]` uint8 each -> `[k]` float32.

    Without bias: two places of different texts are equal once in 256 times by chance.
    """
    equal = np.count_nonzero(a == b, axis=1) / np.float32(PLACES)
    return (equal - 1 / 256) / (1 - 1 / 256)
