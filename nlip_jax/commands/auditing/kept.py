"""What to train on after an audit: a column, a list of shards, and a list of uids.

A list of shards can only leave whole shards out. Single pairs are left out by the column, which
`data.keep_column` takes, or by the uids, from which DataComp's resharder makes new shards.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from nlip_jax.commands.auditing.shard_account import ShardNoise
from nlip_jax.files import write_atomically

UID = np.dtype("u8,u8")  # what DataComp's resharder reads: halves of 128 bits, sorted
_DIGITS = 32
_HEX = r"^[0-9a-fA-F]{1,32}$"


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What counts as good enough.

    Attributes:
      keep_below: pairs with a noise probability below it are kept.
      shard_noise: shards with at most this share of noisy pairs are.
    """

    keep_below: float
    shard_noise: float


def is_kept(table: pa.Table, limits: Limits) -> np.ndarray:
    """Whether each pair of a table is kept, `[k]` bool; those that nobody looked at are not."""
    return table["noise_prob"].to_numpy() < limits.keep_below  # NaN is not


def keeps_shard(shard: ShardNoise, limits: Limits) -> bool:
    """Whether a shard is kept; one that nobody looked at is, for nothing speaks against it."""
    return not shard.looked_at or shard.share <= limits.shard_noise


class KeptUids:
    """Collects the uids of kept pairs, from tables of `Evidence`.

    Attributes:
      without: kept pairs that have none.
    """

    def __init__(self) -> None:
        self.without = 0
        self._halves = [np.zeros((0, 2), np.uint64)]

    def add(self, table: pa.Table, kept: np.ndarray) -> None:
        """Takes those of a table's pairs that are kept, `[k]` bool."""
        uids = table["uid"].filter(pa.array(kept)).combine_chunks()
        whole = uids.filter(pc.match_substring_regex(uids, _HEX))  # drops nulls
        self.without += len(uids) - len(whole)
        self._halves.append(halves_of(whole))

    def uids(self) -> np.ndarray:
        """All of them, each once, in the order that the resharder searches in: `[k]` of `UID`."""
        halves = np.concatenate(self._halves)
        halves = halves[np.lexsort((halves[:, 1], halves[:, 0]))]
        new = np.ones(len(halves), np.bool_)
        new[1:] = (halves[1:] != halves[:-1]).any(1)
        found = np.empty(int(new.sum()), UID)
        found["f0"], found["f1"] = halves[new].T
        return found


def halves_of(uids: pa.Array) -> np.ndarray:
    """Upper and lower 64 bits of hexadecimal texts, `[k, 2]` uint64."""
    digits = "".join(pc.ascii_lpad(uids, _DIGITS, "0").to_pylist())
    return np.frombuffer(bytes.fromhex(digits), ">u8").astype(np.uint64).reshape(-1, 2)


def write_shards(path: Path, shards: Iterable[ShardNoise], limits: Limits) -> int:
    """Writes the names of kept shards, a line each; returns how many there are."""
    names = [shard.shard for shard in shards if keeps_shard(shard, limits)]
    write_atomically(path, "".join(f"{name}\n" for name in names).encode())
    return len(names)
