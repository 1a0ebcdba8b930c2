"""What is known of the examples beside their rows: columns, joined to batches by id."""

import dataclasses

import numpy as np

from nlip_jax.methods.base import Joined


@dataclasses.dataclass(frozen=True, eq=False)
class JoinedColumn:
    """A column as a batch shows it.

    Attributes:
      joined: how.
      values: `[n, ...]` of all examples, memory-mapped as a rule; None while nothing is known.
    """

    joined: Joined
    values: np.ndarray | None

    def rows(self, ids: np.ndarray) -> np.ndarray:
        """The rows of some examples, `[k, *shape]`; 0 where nothing is known, as NaN says it is.

        Args:
          ids: `[k]`; examples behind the end of the column are not known to it.
        """
        joined = self.joined
        if self.values is None:
            return np.zeros((len(ids), *joined.shape), joined.dtype)
        known = np.asarray(self.values[np.minimum(ids, len(self.values) - 1)])
        if np.issubdtype(known.dtype, np.floating):
            known[np.isnan(known)] = 0
        known = known if joined.rows is None else joined.rows(known)
        known = known.astype(joined.dtype, copy=False)
        known[ids >= len(self.values)] = 0
        return known


def join_columns(
    batch: dict[str, np.ndarray], ids: np.ndarray, columns: dict[str, JoinedColumn]
) -> dict[str, np.ndarray]:
    """Adds what is known of the examples of a batch, by name."""
    for name, column in columns.items():
        batch[name] = column.rows(ids)
    return batch
