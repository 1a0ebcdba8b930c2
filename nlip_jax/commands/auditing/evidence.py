"""What an audit knows of each pair, and the table that it becomes, a part at a time."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from nlip_jax.data.listing import PART, Listing
from nlip_jax.data.members import Members

# (ids [k], captions [k]) -> list for each caption, the concepts that it lacks; null where unknown.
FindMissing = Callable[[np.ndarray, pa.Array], pa.Array]

TABLE = pa.schema(
    [
        ("example_id", pa.int64()),
        ("shard", pa.dictionary(pa.int32(), pa.string())),
        ("key", pa.string()),
        ("uid", pa.string()),
        ("caption", pa.string()),
        ("pair_loss", pa.float32()),  # nats
        ("noise_prob", pa.float32()),
        ("duplicate_group", pa.int64()),  # the first example with nearly this caption
        ("missing_concepts", pa.list_(pa.string())),
        ("proposed_caption", pa.string()),
    ]
)
_LISTED = ("example_id", "shard", "key", "uid", "caption")


def _nothing(ids: np.ndarray, captions: pa.Array) -> pa.Array:
    del captions
    return pa.nulls(len(ids), TABLE.field("missing_concepts").type)


@dataclass(frozen=True, kw_only=True, eq=False)
class Evidence:
    """What is known of each example of a data set; n is the number of ids.

    Attributes:
      members: the examples that are audited.
      listing: their captions and names, as far as they were read.
      losses: `[n]` float32 nats, NaN where none is known.
      noise_prob: `[n]` float32, NaN likewise.
      group: `[n]` int64, the first example with nearly the same caption; -1 where it has none.
      missing: finds concepts that texts lack.
      proposed: caption by example.
    """

    members: Members
    listing: Listing
    losses: np.ndarray
    noise_prob: np.ndarray
    group: np.ndarray
    missing: FindMissing = _nothing
    proposed: Mapping[int, str] = field(default_factory=dict)

    def tables(self) -> Iterator[pa.Table]:
        """All that is known, as tables of `TABLE` in the order of ids, one for each part."""
        listed = set(self.listing.finished())
        for part in range(self.listing.num_parts):
            read = self._read(part) if part in listed else self._unread(part)
            if len(read):
                yield self._join(read)

    def _read(self, part: int) -> pa.Table:
        return pq.read_table(
            self.listing.path(part),
            columns=list(_LISTED),
            use_threads=False,
            read_dictionary=["shard"],
        )

    def _unread(self, part: int) -> pa.Table:
        """The examples of a part that was not listed in time."""
        start, stop = part * PART, min((part + 1) * PART, self.listing.num_ids)
        ids = start + np.flatnonzero(self.members.mask(start, stop))
        nulls = [pa.nulls(len(ids), TABLE.field(name).type) for name in _LISTED[1:]]
        return pa.table([pa.array(ids), *nulls], names=list(_LISTED))

    def _join(self, read: pa.Table) -> pa.Table:
        ids = read["example_id"].to_numpy()
        captions = read["caption"].combine_chunks()
        found = {
            "pair_loss": _known(self.losses[ids]),
            "noise_prob": _known(self.noise_prob[ids]),
            "duplicate_group": pa.array(self.group[ids], mask=self.group[ids] < 0),
            "missing_concepts": self.missing(ids, captions),
            "proposed_caption": pa.array(
                [self.proposed.get(example_id) for example_id in ids.tolist()], pa.string()
            ),
        }
        for name, column in found.items():
            read = read.append_column(name, column)
        return read.select(TABLE.names).cast(TABLE)


def _known(values: np.ndarray) -> pa.Array:
    return pa.array(values, pa.float32(), mask=np.isnan(values))
