"""Words of a text, and the 64-bit numbers that stand for texts, unigrams and bigrams in counts."""

import functools
import hashlib
import re

import numpy as np

_WORD = re.compile(r"\w+(?:['\u2019]\w+)*")
_ODD = np.uint64(0x9E3779B97F4A7C15)  # 2^64 / golden ratio: spreads the first word of a bigram


def words(text: str) -> list[str]:
    """The unigrams of a text: runs of letters and digits in lower case, such as "don't"."""
    return _WORD.findall(text.lower())


@functools.lru_cache(1 << 16)
def number_of(text: str) -> int:
    """A number in [0, 2^64) that stands for a text; the same on every machine."""
    encoded = text.encode("utf-8", "replace")  # JSON can spell half surrogate pairs
    return int.from_bytes(hashlib.blake2b(encoded, digest_size=8).digest(), "big")


def token_numbers(text: str) -> np.ndarray:
    """Numbers of the unigrams and then the bigrams of a text, `[k]` uint64."""
    unigrams = np.array([number_of(word) for word in words(text)], np.uint64)
    bigrams = unigrams[:-1] * _ODD + unigrams[1:]
    return np.concatenate([unigrams, bigrams])
