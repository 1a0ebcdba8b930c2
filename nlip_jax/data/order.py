"""The order of examples: a seeded permutation that is computed, never stored.

A position counts every example a run has read since its start: position // n is the epoch, and
each epoch has its own permutation of all ids. A row of a batch is a position, so the order does
not depend on the number of hosts, workers or devices, and resuming needs one integer.
"""

import dataclasses

import numpy as np

_ROUNDS = 6
_MULTIPLIERS = (np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB))
_GOLDEN = np.uint64(0x9E3779B97F4A7C15)


def _mix(x: np.ndarray) -> np.ndarray:
    """SplitMix64's finaliser: every input bit moves every output bit."""
    x = (x ^ (x >> np.uint64(30))) * _MULTIPLIERS[0]
    x = (x ^ (x >> np.uint64(27))) * _MULTIPLIERS[1]
    return x ^ (x >> np.uint64(31))


def _encrypt(x: np.ndarray, *, half_bits: int, keys: np.ndarray) -> np.ndarray:
    """A Feistel network: a keyed bijection of [0, 4**half_bits) to itself."""
    shift, mask = np.uint64(half_bits), np.uint64((1 << half_bits) - 1)
    left, right = x >> shift, x & mask
    for key in keys:
        left, right = right, left ^ (_mix(right + key) & mask)
    return (left << shift) | right


def ids_at(positions: np.ndarray, *, num_examples: int, seed: int) -> np.ndarray:
    """The examples at some positions of the endless, epoch-wise shuffled stream.

    Args:
      positions: [k] integers >= 0.
      num_examples: n, size of the data set.
      seed: of the whole stream; every epoch derives its own.

    Returns:
      [k] int64 example ids. Each block [e n, (e + 1) n) of positions holds every id once.
    """
    positions = np.asarray(positions, np.uint64)
    n = np.uint64(num_examples)
    half_bits = max(1, (max(num_examples - 1, 1).bit_length() + 1) // 2)
    with np.errstate(over="ignore"):
        epochs = positions // n
        stream = _mix(np.uint64(seed) * _GOLDEN + epochs)
        keys = [_mix(stream + np.uint64(i + 1) * _GOLDEN) for i in range(_ROUNDS)]
        ids = _encrypt(positions % n, half_bits=half_bits, keys=np.stack(keys))
        # Walk along the cycle until the value lies in the range: still a bijection of it.
        outside = np.flatnonzero(ids >= n)
        while outside.size:
            ids[outside] = _encrypt(
                ids[outside], half_bits=half_bits, keys=np.stack([key[outside] for key in keys])
            )
            outside = outside[ids[outside] >= n]
    return ids.astype(np.int64)


@dataclasses.dataclass(frozen=True)
class Stream:
    """The endless stream of training batches.

    Attributes:
      num_examples: n.
      batch_size: global.
      seed: of the order.
      rows: rows of the global batch that this process reads.
    """

    num_examples: int
    batch_size: int
    seed: int
    rows: np.ndarray

    def block(self, batch: int) -> "Block":
        """The examples of one batch."""
        positions = batch * self.batch_size + self.rows
        ids = ids_at(positions, num_examples=self.num_examples, seed=self.seed)
        return Block(
            ids=ids, epochs=positions // self.num_examples, valid=np.ones(len(ids), np.bool_)
        )


@dataclasses.dataclass(frozen=True)
class Pass:
    """Every example once; the last batch is filled up with other real rows, marked not valid.

    Attributes:
      num_examples: n.
      batch_size: global.
      rows: rows of the global batch that this process reads.
      seed: of the order; None reads in the order of ids.
    """

    num_examples: int
    batch_size: int
    rows: np.ndarray
    seed: int | None = None

    @property
    def num_batches(self) -> int:
        """Batches of the whole pass."""
        return -(-self.num_examples // self.batch_size)

    def block(self, batch: int) -> "Block":
        """The examples of one batch."""
        positions = batch * self.batch_size + self.rows
        wrapped = positions % self.num_examples
        if self.seed is None:
            ids = wrapped
        else:
            ids = ids_at(wrapped, num_examples=self.num_examples, seed=self.seed)
        return Block(
            ids=ids, epochs=np.zeros_like(positions), valid=positions < self.num_examples
        )


@dataclasses.dataclass(frozen=True)
class Block:
    """This process's rows of one batch.

    Attributes:
      ids: [k] int64.
      epochs: [k] int64, how often each example was read before.
      valid: [k] bool, False on rows that only fill up.
    """

    ids: np.ndarray
    epochs: np.ndarray
    valid: np.ndarray
