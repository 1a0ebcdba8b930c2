"""Results of examples that are kept as they come, so that nothing of them is made twice."""

import time
from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np

from nlip_jax.columns import ColumnVersion

_ROWS, _SECONDS = 65_536, 20.0  # after which what has come is written down


@dataclass
class Kept:
    """What was computed of examples, for several columns alike.

    Attributes:
      columns: by name; each gets the same fragments.
    """

    columns: dict[str, ColumnVersion]
    _ids: list[np.ndarray] = field(default_factory=list)
    _values: dict[str, list[np.ndarray]] = field(default_factory=dict)
    _written: float = field(default_factory=time.monotonic)

    def prepare(self) -> None:
        """Makes the folders; clears away what another model left in them."""
        for column in self.columns.values():
            column.prepare()

    @property
    def is_done(self) -> bool:
        """Whether all examples have values."""
        return all(column.is_done for column in self.columns.values())

    def fragments(self) -> int:
        """Fragments that all columns have."""
        return min(column.num_own_fragments() for column in self.columns.values())

    def ids(self) -> np.ndarray:
        """The examples that have values, in the order they came in."""
        found = [ids for ids, _ in self.read(next(iter(self.columns)))]
        return np.concatenate([np.zeros(0, np.int64), *found])

    def add(self, ids: np.ndarray, values: dict[str, np.ndarray]) -> None:
        """Takes results; writes now and then."""
        self._ids.append(ids)
        for name, some in values.items():
            self._values.setdefault(name, []).append(some)
        waited = time.monotonic() - self._written
        if waited > _SECONDS or sum(map(len, self._ids)) >= _ROWS:
            self.flush()

    def flush(self) -> None:
        """Writes what was taken."""
        if self._ids:
            index, ids = self.fragments(), np.concatenate(self._ids)
            for name, column in self.columns.items():
                column.append(index, ids=ids, values=np.concatenate(self._values[name]))
        self._ids, self._values, self._written = [], {}, time.monotonic()

    def dense(self, name: str, *, num_ids: int, like: np.ndarray) -> np.ndarray:
        """Values of all examples, `[num_ids, ...]`: as far as they are known, else `like`."""
        column = self.columns[name]
        if column.is_done:
            return column.read()
        found = np.full((num_ids, *like.shape), like, like.dtype)
        for ids, values in self.read(name):
            found[ids] = values
        return found

    def read(self, name: str) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """The fragments of a column that all columns have: examples, values."""
        count = self.fragments()
        for index, fragment in enumerate(self.columns[name].fragments()):
            if index < count:
                yield fragment
