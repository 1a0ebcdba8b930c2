"""Goes through all pairs of an audit once, and writes what is to be written of each."""

import os
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from nlip_jax.commands.auditing.evidence import TABLE, Evidence
from nlip_jax.commands.auditing.kept import KeptUids, Limits, is_kept, write_shards
from nlip_jax.commands.auditing.shard_account import ShardAccount, ShardNoise
from nlip_jax.data.listing import PART
from nlip_jax.train import stop

PAIRS, SHARDS, UIDS = "pairs.parquet", "kept_shards.txt", "kept_uids.npy"


@dataclass(frozen=True, kw_only=True)
class Written:
    """What came of it.

    Attributes:
      pairs: lines of `PAIRS`.
      unreadable: listed pairs whose caption cannot be read.
      kept: pairs below the limit.
      shards: all of them, in the order of the examples.
      kept_shards: how many are listed in `SHARDS`.
      uids: how many are listed in `UIDS`; None where no pair has one, and there is no file.
      missing: how often each concept is missing.
    """

    pairs: int
    unreadable: int
    kept: int
    shards: list[ShardNoise]
    kept_shards: int
    uids: int | None
    missing: Counter[str]


def write_tables(evidence: Evidence, folder: Path, *, limits: Limits) -> Written:
    """Writes `PAIRS`, `SHARDS` and `UIDS` into a folder, each whole or not at all.

    Memory is that of one part, beside 16 bytes for each uid.

    Raises:
      Preempted: the audit was asked to stop.
    """
    account, uids, missing = ShardAccount(), KeptUids(), Counter()
    pairs = kept = unreadable = 0
    temporary = folder / f"{PAIRS}.{os.getpid()}.tmp"
    try:
        with pq.ParquetWriter(temporary, TABLE, use_dictionary=["shard"]) as writer:
            for table in evidence.tables():
                stop.check()
                writer.write_table(table, row_group_size=PART)
                keep = is_kept(table, limits)
                account.add(table)
                uids.add(table, keep)
                missing.update(_count(table["missing_concepts"]))
                pairs, kept = pairs + len(table), kept + int(keep.sum())
                unreadable += table["caption"].null_count - table["key"].null_count
        temporary.replace(folder / PAIRS)
    finally:
        temporary.unlink(missing_ok=True)
    shards = account.shards()
    return Written(
        pairs=pairs,
        unreadable=unreadable,
        kept=kept,
        shards=shards,
        kept_shards=write_shards(folder / SHARDS, shards, limits),
        uids=_write_uids(folder / UIDS, uids),
        missing=missing,
    )


def _count(lists: pa.ChunkedArray) -> dict[str, int]:
    found = pc.value_counts(pc.list_flatten(lists.combine_chunks()))
    return {one["values"]: one["counts"] for one in found.to_pylist()}


def _write_uids(path: Path, kept: KeptUids) -> int | None:
    uids = kept.uids()
    if not len(uids):
        path.unlink(missing_ok=True)  # of an earlier audit
        return None
    temporary = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("wb") as file:
            np.save(file, uids)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    return len(uids)
