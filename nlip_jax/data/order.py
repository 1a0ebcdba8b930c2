"""The order of examples: a seeded permutation that is computed, never stored.

A position counts every example a run has read since its start: position // n is the epoch, and
each epoch has its own permutation of all ids. A row of a batch is a position, so the order does
not depend on the number of hosts, workers or devices, and resuming needs one integer.
"""

import dataclasses
import functools
from typing import Protocol

import numpy as np

from nlip_jax.data.members import Members
from nlip_jax.errors import UsageError

_ROUNDS = 6
_MULTIPLIERS = (np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB))
_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_PERIOD = 4096  # positions in which every part of a mixture gets its share
# Seeds of a mixture's parts and of their interleaving lie where no seed of a config does.
_PARTS, _MIXING = 1 << 33, 1 << 32


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


class Draw(Protocol):
    """From the positions of a run to examples; a function of position and seed alone."""

    members: Members

    def __len__(self) -> int:
        """Positions in an epoch."""
        ...

    def at(self, positions: np.ndarray, *, seed: int) -> tuple[np.ndarray, np.ndarray]:
        """Examples and epochs at some positions, both `[k]` int64."""
        ...


@dataclasses.dataclass(frozen=True)
class Epochs:
    """Every member once an epoch, in another order each time.

    Attributes:
      members: which examples take part.
    """

    members: Members

    def __len__(self) -> int:
        return len(self.members)

    def at(self, positions: np.ndarray, *, seed: int) -> tuple[np.ndarray, np.ndarray]:
        """Examples and epochs at some positions."""
        places = ids_at(positions, num_examples=len(self), seed=seed)
        return self.members.take(places), positions // len(self)


@dataclasses.dataclass(frozen=True)
class WithReplacement:
    """Every position draws one of all members, whatever was drawn before (ProtoCLIP's episodes).

    Each draw counts as an epoch of its own, so that an example drawn twice is augmented twice.

    Attributes:
      members: which examples take part.
    """

    members: Members

    def __len__(self) -> int:
        return len(self.members)

    def at(self, positions: np.ndarray, *, seed: int) -> tuple[np.ndarray, np.ndarray]:
        """Examples and epochs at some positions."""
        places = _uniform(positions, seed=seed, stream=0, bound=len(self))
        return self.members.take(places), np.asarray(positions, np.int64)


@dataclasses.dataclass(frozen=True)
class Mixed:
    """Parts of a data set that are drawn by weight, each with epochs of its own.

    In every 4096 positions each part has its share, to within one position, at shuffled places.
    So how often a part was drawn before any position is known without looking at the others.

    Attributes:
      members: which examples take part.
      bounds: example ids where the parts begin, and the end of the last: parts + 1 numbers.
      weights: one positive number a part, in any unit.

    Raises:
      UsageError: a part without members.
    """

    members: Members
    bounds: tuple[int, ...]
    weights: tuple[float, ...]

    def __post_init__(self) -> None:
        if (np.diff(self._places) == 0).any():
            part = int(np.argmin(np.diff(self._places)))
            raise UsageError(f"part {part} of the mixture has no examples left: take it out")
        if (np.diff(self._slots) == 0).any():
            raise UsageError(
                f"weights {self.weights}: the smallest is below 1/{_PERIOD} of their sum; raise it "
                "or take that part out"
            )

    def __len__(self) -> int:
        return len(self.members)

    @functools.cached_property
    def _places(self) -> np.ndarray:
        return np.array([self.members.rank(bound) for bound in self.bounds])

    @functools.cached_property
    def _slots(self) -> np.ndarray:
        """Slots of a period before those of each part; the last number is the period."""
        shares = np.cumsum(self.weights) / np.sum(self.weights)
        return np.concatenate([[0], np.round(shares * _PERIOD)]).astype(np.int64)

    def at(self, positions: np.ndarray, *, seed: int) -> tuple[np.ndarray, np.ndarray]:
        """Examples and epochs (of their part) at some positions."""
        positions = np.asarray(positions, np.int64)
        part, turn = np.empty_like(positions), np.empty_like(positions)
        for period in np.unique(positions // _PERIOD):
            here = positions // _PERIOD == period
            place = positions[here] % _PERIOD
            parts, turns = _pattern(int(period), seed, tuple(self._slots))
            part[here] = parts[place]
            turn[here] = period * np.diff(self._slots)[parts[place]] + turns[place]
        places, epochs = np.empty_like(positions), np.empty_like(positions)
        for number in np.unique(part):
            here = part == number
            size = int(np.diff(self._places)[number])
            own_ids = ids_at(turn[here], num_examples=size, seed=seed + _PARTS * (int(number) + 1))
            places[here] = self._places[number] + own_ids
            epochs[here] = turn[here] // size
        return self.members.take(places), epochs


@dataclasses.dataclass(frozen=True)
class Stream:
    """The endless stream of training batches.

    Attributes:
      draw: which example stands at which position.
      batch_size: global.
      seed: of the order.
      rows: rows of the global batch that this process reads.
    """

    draw: Draw
    batch_size: int
    seed: int
    rows: np.ndarray

    def block(self, batch: int) -> "Block":
        """The examples of one batch."""
        positions = batch * self.batch_size + self.rows
        ids, epochs = self.draw.at(positions, seed=self.seed)
        return Block(ids=ids, epochs=epochs, valid=np.ones(len(ids), np.bool_))

    def replacement(self, batch: int, row: int, attempt: int) -> int:
        """The example that takes the place of one that cannot be read.

        Args:
          batch: its batch.
          row: number of the row among this process's rows.
          attempt: 1 for the first replacement, 2 where that cannot be read either, ...
        """
        position = batch * self.batch_size + int(self.rows[row])
        return _other(self.draw.members, position, seed=self.seed, attempt=attempt)


@dataclasses.dataclass(frozen=True)
class Pass:
    """Every member once; the last batch is filled up with other real rows, marked not valid.

    Attributes:
      members: which examples are looked at.
      batch_size: global.
      rows: rows of the global batch that this process reads.
      seed: of the order; None reads in the order of ids.
    """

    members: Members
    batch_size: int
    rows: np.ndarray
    seed: int | None = None

    @property
    def num_batches(self) -> int:
        """Batches of the whole pass."""
        return -(-len(self.members) // self.batch_size)

    def block(self, batch: int) -> "Block":
        """The examples of one batch."""
        positions = batch * self.batch_size + self.rows
        places = positions % len(self.members)
        if self.seed is not None:
            places = ids_at(places, num_examples=len(self.members), seed=self.seed)
        return Block(
            ids=self.members.take(places),
            epochs=np.zeros_like(positions),
            valid=positions < len(self.members),
        )

    def replacement(self, batch: int, row: int, attempt: int) -> int:
        """The example that stands in for one that cannot be read; see `Stream.replacement`."""
        position = batch * self.batch_size + int(self.rows[row])
        return _other(self.members, position, seed=self.seed or 0, attempt=attempt)


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


@functools.lru_cache(maxsize=64)  # small batches ask for the same period again and again
def _pattern(period: int, seed: int, bounds: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
    """Which part stands at every place of a period, and how often it stood there before."""
    positions = period * _PERIOD + np.arange(_PERIOD)
    slots = ids_at(positions, num_examples=_PERIOD, seed=seed + _MIXING)
    parts = np.searchsorted(bounds, slots, side="right") - 1
    turns = np.empty(_PERIOD, np.int64)
    for number in range(len(bounds) - 1):
        turns[parts == number] = np.arange((parts == number).sum())
    return parts, turns


def _uniform(positions: np.ndarray, *, seed: int, stream: int, bound: int) -> np.ndarray:
    """A number in [0, bound) for each position, `[k]` int64; its bias is below bound / 2**63."""
    positions = np.asarray(positions, np.uint64)
    with np.errstate(over="ignore"):
        key = _mix(np.uint64(seed) * _GOLDEN + np.uint64(stream + 1))
        bits = _mix(_mix(positions * _GOLDEN + key) ^ key)
    return (bits >> np.uint64(1)).astype(np.int64) % bound


def _other(members: Members, position: int, *, seed: int, attempt: int) -> int:
    place = _uniform(np.array([position]), seed=seed, stream=attempt, bound=len(members))
    return int(members.take(place)[0])
