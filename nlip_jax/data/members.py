"""Which examples of a data set take part: all but the holes, or those that a column keeps."""

from dataclasses import dataclass
from typing import Protocol

import numpy as np

from nlip_jax.errors import UsageError

_BLOCK = 512  # ids whose members are counted together; the counts take an eighth of the bits' room
_PIECE = 1 << 22  # ids looked at together while a bitmap is made


class Members(Protocol):
    """An increasing sequence of example ids that is never written out."""

    num_ids: int  # ids of the data set, members or not

    def __len__(self) -> int:
        """Number of members."""
        ...

    def take(self, places: np.ndarray) -> np.ndarray:
        """The ids at some places, `[k]` int64 -> `[k]` int64."""
        ...

    def rank(self, example_id: int) -> int:
        """How many members lie below an id."""
        ...

    def mask(self, start: int, stop: int) -> np.ndarray:
        """Whether each id in [start, stop) is a member, `[stop - start]` bool."""
        ...


class Ranges:
    """All ids of a data set but those in its holes.

    Args:
      num_ids: of the data set.
      holes: `[k, 2]` int64, sorted [start, stop) of ids that are gone.

    Raises:
      UsageError: nothing is left.
    """

    def __init__(self, num_ids: int, holes: np.ndarray | None = None) -> None:
        holes = np.zeros((0, 2), np.int64) if holes is None else holes
        # A hole may lie inside an earlier one.
        starts = np.concatenate([[0], np.maximum.accumulate(holes[:, 1])]).astype(np.int64)
        stops = np.concatenate([holes[:, 0], [num_ids]]).astype(np.int64)
        kept = stops > starts
        self.num_ids = num_ids
        self._starts, self._stops = starts[kept], stops[kept]
        self._places = np.concatenate([[0], np.cumsum(self._stops - self._starts)])
        if not len(self):
            raise UsageError(f"none of {num_ids} examples is left: index the shards again")

    def __len__(self) -> int:
        return int(self._places[-1])

    def take(self, places: np.ndarray) -> np.ndarray:
        """The ids at some places, `[k]` int64."""
        number = self._places.searchsorted(places, side="right") - 1
        return self._starts[number] + (places - self._places[number])

    def rank(self, example_id: int) -> int:
        """How many members lie below an id."""
        return int(np.clip(example_id - self._starts, 0, self._stops - self._starts).sum())

    def mask(self, start: int, stop: int) -> np.ndarray:
        """Whether each id in [start, stop) is a member."""
        mask = np.zeros(stop - start, np.bool_)
        for first, last in zip(self._starts, self._stops, strict=True):
            mask[max(first - start, 0) : max(last - start, 0)] = True
        return mask


@dataclass(frozen=True, eq=False)
class Bitmap:
    """Members marked one by one: a bit for each id, whatever its share.

    Attributes:
      num_ids: of the data set.
      bits: `[blocks, 64]` uint8, as of `np.packbits`; 0 from `num_ids` on.
      places: `[blocks + 1]` int64, members below each block of 512 ids.
    """

    num_ids: int
    bits: np.ndarray
    places: np.ndarray

    @classmethod
    def of(cls, base: Members, keep: "Keep") -> "Bitmap":
        """Those members of another set that a rule keeps, looked at in pieces.

        Raises:
          UsageError: it keeps none.
        """
        bits = np.zeros(-(-base.num_ids // _BLOCK) * (_BLOCK // 8), np.uint8)
        for start in range(0, base.num_ids, _PIECE):
            stop = min(start + _PIECE, base.num_ids)
            mask = base.mask(start, stop) & keep.mask(start, stop)
            bits[start // 8 : -(-stop // 8)] = np.packbits(mask)
        bits = bits.reshape(-1, _BLOCK // 8)
        places = np.zeros(len(bits) + 1, np.int64)
        np.cumsum(np.bitwise_count(bits).sum(1, dtype=np.int64), out=places[1:])
        if not places[-1]:
            raise UsageError(f"{keep} keeps none of {len(base)} examples: widen it")
        return cls(base.num_ids, bits, places)

    def __len__(self) -> int:
        return int(self.places[-1])

    def take(self, places: np.ndarray) -> np.ndarray:
        """The ids at some places, `[k]` int64."""
        blocks = self.places.searchsorted(places, side="right") - 1
        inside = places - self.places[blocks]
        up_to = np.cumsum(np.unpackbits(self.bits[blocks], axis=1), axis=1, dtype=np.int16)
        return blocks * _BLOCK + (up_to <= inside[:, None]).sum(1)

    def rank(self, example_id: int) -> int:
        """How many members lie below an id."""
        block, rest = divmod(example_id, _BLOCK)
        if block >= len(self.places) - 1:
            return len(self)
        return int(self.places[block] + np.unpackbits(self.bits[block])[:rest].sum())

    def mask(self, start: int, stop: int) -> np.ndarray:
        """Whether each id in [start, stop) is a member."""
        first = start // 8
        bits = np.unpackbits(self.bits.ravel()[first : -(-stop // 8)])
        return bits[start - 8 * first : stop - 8 * first].astype(np.bool_)


@dataclass(frozen=True, eq=False)
class Keep:
    """The rule `low <= value < high` on a column.

    Attributes:
      name: of the column, for messages.
      values: `[m]`, perhaps memory-mapped; ids from m on were added later and are kept.
      low: smallest value kept.
      high: values from here on are left out.
    """

    name: str
    values: np.ndarray
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.low} <= {self.name} < {self.high}"

    def mask(self, start: int, stop: int) -> np.ndarray:
        """Whether each id in [start, stop) is kept; a value that is not a number is not."""
        values = np.asarray(self.values[start:stop])
        mask = np.ones(stop - start, np.bool_)
        mask[: len(values)] = (values >= self.low) & (values < self.high)
        return mask
