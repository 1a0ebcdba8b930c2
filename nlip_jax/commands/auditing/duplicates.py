"""Which captions of a data set are equal or nearly so."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa

from nlip_jax.data.duplicates.groups import group_texts
from nlip_jax.data.listing import Listing


@dataclass(frozen=True, kw_only=True, eq=False)
class Duplicates:
    """Groups of examples with nearly the same caption.

    Attributes:
      group: `[n]` int64, the first example of its group; -1 for captions that are alone.
      num_equal: captions that are equal to an earlier one but for case and punctuation.
      num_compared: captions that were compared.
      largest: first example of each group, the largest group first.
      sizes: of these groups.
    """

    group: np.ndarray
    num_equal: int
    num_compared: int
    largest: np.ndarray
    sizes: np.ndarray

    @property
    def num_grouped(self) -> int:
        """Captions that are not alone."""
        return int(self.sizes.sum())


def find_duplicates(listing: Listing, *, least: float, folder: Path) -> Duplicates:
    """Groups the captions of a list.

    Args:
      listing: as far as it was made.
      least: similarity from which captions belong together.
      folder: for a file that is removed at the end.
    """
    readable = _readable(listing)
    found = group_texts(
        _numbers(listing, readable),
        _signatures(listing, readable),
        least=least,
        file=folder / "signatures.tmp",
    )
    ids = listing.ids()[readable]
    counts = np.bincount(found.first, minlength=len(ids))
    heads = np.flatnonzero(counts > 1)
    heads = heads[np.argsort(-counts[heads], kind="stable")]
    group = np.full(listing.num_ids, -1, np.int64)
    alone = counts[found.first] == 1
    group[ids[~alone]] = ids[found.first[~alone]]
    return Duplicates(
        group=group,
        num_equal=found.num_equal,
        num_compared=len(ids),
        largest=ids[heads],
        sizes=counts[heads],
    )


def _readable(listing: Listing) -> np.ndarray:
    """Which of the listed captions could be read, `[m]` bool."""
    found = np.zeros(listing.num_listed(), np.bool_)
    for start, table in _placed(listing, "caption"):
        found[start : start + len(table)] = table["caption"].is_valid().to_numpy()
    return found


def _numbers(listing: Listing, readable: np.ndarray) -> np.ndarray:
    """The numbers of those texts, `[k]` uint64."""
    found = np.zeros(int(readable.sum()), np.uint64)
    stop = 0
    for start, table in _placed(listing, "text_number"):
        some = table["text_number"].to_numpy()[readable[start : start + len(table)]]
        found[stop : stop + len(some)] = some
        stop += len(some)
    return found


def _signatures(listing: Listing, readable: np.ndarray) -> Iterator[np.ndarray]:
    """Their signatures, a part at a time."""
    start = 0
    for part in listing.signatures():
        yield part[readable[start : start + len(part)]]
        start += len(part)


def _placed(listing: Listing, column: str) -> Iterator[tuple[int, pa.Table]]:
    """A column a part at a time, with the place where each part begins."""
    start = 0
    for table in listing.columns(column):
        yield start, table
        start += len(table)
