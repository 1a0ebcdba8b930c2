"""An opened index."""

import functools
import hashlib
import itertools
import json
import logging
import os
from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from nlip_jax.data.formats.base import COUNTS, Format
from nlip_jax.data.index.layout import (
    INDEX_AGAIN,
    ROWS,
    START,
    STARTS,
    Meta,
    map_array,
    read_meta,
    unusable,
)
from nlip_jax.data.index.shards import Shard, full_path
from nlip_jax.data.storage import Storage
from nlip_jax.errors import RunError, UsageError

_LOG = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False, repr=False)
class Index:
    """Where every image of some shards and its captions lie, by `image_id`.

    Travels to other processes as its place, and stays there what it was even if the index on disk
    was extended in the meantime.

    Attributes:
      directory: where it is.
      storage: through which the shards are looked at.
      meta: its format, and its shards in the order of their images.
      rows: `[n]` of the format's row dtype, memory-mapped.
      caption_starts: `[n + 1]` int64, memory-mapped; image i has the captions numbered from
        caption_starts[i] to caption_starts[i + 1].
    """

    directory: str
    storage: Storage
    meta: Meta
    rows: np.ndarray
    caption_starts: np.ndarray

    @classmethod
    def open(cls, directory: str | os.PathLike, *, storage: Storage) -> "Index":
        """Opens an index; its arrays stay on disk.

        Raises:
          UsageError: the directory holds no index, or one that cannot be used.
        """
        path = Path(directory).absolute()
        return _map(path, storage, read_meta(path))

    def __reduce__(self):
        removed = {number for number, shard in enumerate(self.shards) if shard.removed}
        return _reopen, (self.directory, self.storage, len(self.shards), removed, self.fingerprint)

    @property
    def shards(self) -> tuple[Shard, ...]:
        """All shards, those that are gone included."""
        return self.meta.shards

    # Places that follow from the shards alone are not looked up in the arrays: every look maps
    # pages of them into memory.
    @functools.cached_property
    def first_images(self) -> np.ndarray:
        """First image of every shard, and the number of images; `[number of shards + 1]` int64."""
        return np.cumsum([0, *(shard.num_images for shard in self.shards)], dtype=np.int64)

    @functools.cached_property
    def first_captions(self) -> np.ndarray:
        """The same for captions."""
        return np.cumsum([0, *(shard.num_captions for shard in self.shards)], dtype=np.int64)

    def shard_number(self, image_id: int) -> int:
        """The shard of an image."""
        return int(self.first_images.searchsorted(image_id, side="right")) - 1

    @functools.cached_property
    def counts(self) -> dict[str, int]:
        """What was found in the shards that are there, by the names in `COUNTS`."""
        total = Counter()
        for shard in self.shards:
            if not shard.removed:
                total.update(shard.counts)
        return {name: total[name] for name in COUNTS}

    def holes(self, starts: np.ndarray) -> np.ndarray:
        """Ids of shards that are gone, sorted [start, stop), `[k, 2]` int64.

        Args:
          starts: `first_images` for ids of images, `first_captions` for those of captions.
        """
        ranges = []
        for shard, start, stop in zip(self.shards, starts[:-1], starts[1:], strict=True):
            if not shard.removed or start == stop:
                continue
            if ranges and ranges[-1][1] == start:
                ranges[-1][1] = stop
            else:
                ranges.append([start, stop])
        return np.array(ranges, np.int64).reshape(-1, 2)

    @functools.cached_property
    def fingerprints(self) -> tuple[str, ...]:
        """Hexadecimal; of the index up to and with every shard, holes aside.

        A chain over the shards: an index that was extended has the fingerprints of all that it was
        before, and copies of the same shards elsewhere have the same ones.
        """
        seed = _hash(self.meta.format, json.dumps(self.meta.identity, sort_keys=True))
        chain = itertools.accumulate((shard.content for shard in self.shards), _hash, initial=seed)
        return tuple(itertools.islice(chain, 1, None))

    @functools.cached_property
    def fingerprint(self) -> str:
        """Hexadecimal; covers the holes."""
        holes = self.holes(self.first_images)
        last = self.fingerprints[-1]
        return _hash(last, json.dumps(holes.tolist())) if len(holes) else last

    def check(self, *, shards: Sequence[str] | None = None, format: Format | None = None) -> None:
        """Makes sure that the index is of what was asked for, and that the shards are unchanged.

        Args:
          shards: the shards asked for, in any order; None takes those of the index.
          format: the format asked for; None takes that of the index.

        Raises:
          UsageError: another format or other shards, or a shard that is gone or changed.
          RunError: a store does not answer.
        """
        if format is not None:
            self.meta.check_format(format, Path(self.directory))
        live = {shard.path: shard for shard in self.shards if not shard.removed}
        if shards is not None:
            self._check_asked(live, {full_path(path) for path in shards})
        try:
            statuses = self.storage.statuses(list(live))
        except OSError as error:
            raise RunError(f"the shards cannot be looked at ({error}): try again") from error
        for shard, status in zip(live.values(), statuses, strict=True):
            if status is None:
                raise UsageError(
                    f"shard {shard.path} is not there any more: bring it back or {INDEX_AGAIN}, "
                    "which leaves a hole in its place"
                )
            if status.size != shard.size:
                raise changed(shard, shard.change(status), Path(self.directory))
            if shard.change(status):
                raise UsageError(
                    f"shard {shard.path} changed since it was indexed ({shard.change(status)}): "
                    f"{INDEX_AGAIN}, which accepts it if its content is the same"
                )
        if self.meta.unreadable:
            path, why = next(iter(self.meta.unreadable.items()))
            _LOG.warning(
                "%d shards were unreadable when they were indexed and are left out, such as "
                "%s (%s): repair them and %s",
                *(len(self.meta.unreadable), path, why, INDEX_AGAIN),
            )

    def _check_asked(self, live: Collection[str], asked: set[str]) -> None:
        more = sorted(asked - set(live) - set(self.meta.unreadable))
        fewer = sorted(set(live) - asked)
        if more or fewer:
            parts = [
                f"{len(paths)} {what}, such as {paths[0]}"
                for paths, what in ((more, "are not in it"), (fewer, "of it are not asked for"))
                if paths
            ]
            raise UsageError(
                f"the index in {self.directory} has {len(live)} shards, asked for are "
                f"{len(asked)}; {'; '.join(parts)}: {INDEX_AGAIN} or name another directory"
            )


def changed(shard: Shard, change: str, directory: Path) -> UsageError:
    """The error of a shard that is not what was indexed."""
    return UsageError(
        f"shard {shard.path} changed since it was indexed ({change}), and ids must keep their "
        "meaning: bring the old file back, or give the new one another name (it is appended, the "
        f"old ids become a hole), or remove {directory} to number everything anew; then "
        f"{INDEX_AGAIN}"
    )


def _map(path: Path, storage: Storage, meta: Meta) -> Index:
    try:
        return Index(
            directory=str(path),
            storage=storage,
            meta=meta,
            rows=map_array(path / ROWS, meta.row, meta.num_images),
            caption_starts=map_array(path / STARTS, START, meta.num_images + 1),
        )
    except (OSError, ValueError) as error:
        raise unusable(path, error) from error


def _reopen(
    directory: str, storage: Storage, num_shards: int, removed: set[int], fingerprint: str
) -> Index:
    path = Path(directory)
    meta = read_meta(path)
    shards = (
        replace(shard, removed=number in removed)
        for number, shard in enumerate(meta.shards[:num_shards])
    )
    index = _map(path, storage, replace(meta, shards=tuple(shards)))
    if index.fingerprint != fingerprint:
        raise UsageError(f"the index in {directory} was replaced while in use: start again")
    return index


def _hash(*parts: str) -> str:
    return hashlib.blake2b("\0".join(parts).encode(), digest_size=16).hexdigest()
