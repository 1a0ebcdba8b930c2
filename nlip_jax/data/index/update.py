"""Makes an index, or brings it up to date without changing the meaning of an id."""

import contextlib
import hashlib
import json
import os
import shutil
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from nlip_jax.data.formats.base import Format, Scan
from nlip_jax.data.index.index import Index, changed
from nlip_jax.data.index.layout import (
    Appender,
    Meta,
    is_index,
    is_place,
    locked,
    read_meta,
    write_meta,
)
from nlip_jax.data.index.scanning import scan_all
from nlip_jax.data.index.shards import Shard, full_path, missing_numbers
from nlip_jax.data.storage import Status, Storage
from nlip_jax.errors import RunError, UsageError


@dataclass(frozen=True)
class IndexUpdate:
    """What an update did.

    Attributes:
      index: as it is now, opened.
      added: shards that were appended.
      returned: shards whose hole was filled: they are back, or lie elsewhere now.
      removed: shards that are gone; their ids are holes now.
      unreadable: shards that are left out -> why.
      missing_numbers: names that are missing in numbered sequences of shards.
      complaints: shards that were scanned and had something that was left out -> the first of it.
    """

    index: Index
    added: tuple[str, ...]
    returned: tuple[str, ...]
    removed: tuple[str, ...]
    unreadable: dict[str, str]
    missing_numbers: tuple[str, ...]
    complaints: dict[str, str]


def update_index(
    shards: Sequence[str],
    format: Format,
    directory: str | os.PathLike,
    *,
    storage: Storage,
    workers: int | None = None,
    on_progress: Callable[[int, int], None] = lambda done, total: None,
) -> IndexUpdate:
    """Indexes shards: scans new ones, leaves holes for those that are gone, fills them again.

    Args:
      shards: all shards of the data set; new ones are appended in this order. See `expand_shards`.
      format: theirs.
      directory: where the index is or goes. A good index in it stays good until the new one is
        whole, even if this process is killed.
      storage: where the shards are.
      workers: processes that scan; None takes as many as pay.
      on_progress: called after every scanned shard with the number so far and that of all.

    Raises:
      UsageError: no shard is left that can be read and has images with captions; a shard changed
        since it was indexed; the directory holds another index or other things.
      RunError: a store does not answer, or a process was lost.
    """
    target = Path(directory).absolute()
    paths = list(dict.fromkeys(map(full_path, shards)))
    if not paths:
        raise UsageError("there are no shards to index: name some")
    if not is_place(target):
        raise UsageError(f"{target} is no place for an index, it holds other things: name another")
    with _place(target):
        old = read_meta(target) if is_index(target) else Meta.empty(format)
        old.check_format(format, target)
        statuses = _statuses(storage, paths)
        now, touched = _compare(old.shards, statuses, target)
        there = {shard.path for shard in now if not shard.removed}
        new = {path: status.size for path, status in statuses.items() if path not in there}
        unreadable, complaints = {}, {}
        if new:
            scans = scan_all(
                list(new), format, storage, num_bytes=sum(new.values()), workers=workers
            )
            holes = _holes(now)
            with contextlib.closing(scans), Appender(target, old.row, old.num_images) as appender:
                for number, (path, scan) in enumerate(zip(new, scans, strict=True), 1):
                    on_progress(number, len(new))
                    if path in touched and not _is_same(scan, touched[path]):
                        change = f"{touched[path].change(statuses[path])}, other content"
                        raise changed(touched[path], change, target)
                    if isinstance(scan, str):
                        unreadable[path] = scan
                        continue
                    complaints |= {path: scan.complaint} if scan.complaint else {}
                    shard = _shard(path, scan)
                    if holes[shard.content]:
                        now[holes[shard.content].pop()] = shard
                    else:
                        now.append(shard)
                        appender.append(scan)
                appender.sync()
        unreadable |= {p: f"shard {p} is not there" for p in paths if p not in statuses}
        if not any(shard.num_images and not shard.removed for shard in now):
            raise UsageError(_why_empty(now, unreadable, complaints))
        meta = replace(old, shards=tuple(now), unreadable=unreadable)
        if meta != old:
            write_meta(target, meta)
    pairs = list(zip(old.shards, now, strict=False))
    back = (new for old, new in pairs if not new.removed and (old.removed or old.path != new.path))
    return IndexUpdate(
        index=Index.open(target, storage=storage),
        added=tuple(shard.path for shard in now[len(old.shards) :]),
        returned=tuple(shard.path for shard in back),
        removed=tuple(new.path for old, new in pairs if new.removed and not old.removed),
        unreadable=unreadable,
        missing_numbers=tuple(missing_numbers(paths)),
        complaints=complaints,
    )


@contextlib.contextmanager
def _place(target: Path) -> Iterator[None]:
    """The directory, for this process alone; nothing stays of one that a failure leaves empty."""
    try:
        is_new = not target.exists()
        target.mkdir(parents=True, exist_ok=True)
        with locked(target):
            try:
                yield
            except BaseException:
                if is_new and not is_index(target):
                    shutil.rmtree(target)
                raise
    except OSError as error:
        raise UsageError(f"the index in {target} cannot be written: {error}") from error


def _statuses(storage: Storage, paths: list[str]) -> dict[str, Status]:
    """Size and time of the files that are there."""
    try:
        found = storage.statuses(paths)
    except OSError as error:
        raise RunError(f"the shards cannot be looked at ({error}): try again") from error
    return {path: status for path, status in zip(paths, found, strict=True) if status is not None}


def _compare(
    shards: Sequence[Shard], statuses: Mapping[str, Status], target: Path
) -> tuple[list[Shard], dict[str, Shard]]:
    """Indexed shards, `removed` as it is now, and by path those of which only the time changed.

    These count as removed until they are scanned again and fill their own holes.

    Raises:
      UsageError: one changed.
    """
    live = {shard.path for shard in shards if not shard.removed}
    now, touched = [], {}
    for shard in shards:
        status = statuses.get(shard.path)
        if shard.removed:
            back = status is not None and shard.path not in live and not shard.change(status)
            now.append(replace(shard, removed=not back))
        elif status is not None and status.size != shard.size:
            raise changed(shard, shard.change(status), target)
        else:
            now.append(replace(shard, removed=status is None or bool(shard.change(status))))
            if status is not None and shard.change(status):
                touched[shard.path] = shard
    return now, touched


def _holes(shards: Sequence[Shard]) -> dict[str, list[int]]:
    """Numbers of the shards that are gone, by their content, the last one first."""
    holes = defaultdict(list)
    for number in reversed(range(len(shards))):
        if shards[number].removed:
            holes[shards[number].content].append(number)
    return holes


def _is_same(scan: Scan | str, shard: Shard) -> bool:
    """Whether a shard that was scanned again is what it was; a reason why it cannot be is not."""
    return isinstance(scan, Scan) and _shard(shard.path, scan).content == shard.content


def _shard(path: str, scan: Scan) -> Shard:
    content = hashlib.blake2b(digest_size=16)
    content.update(json.dumps([path.rpartition("/")[2], scan.size, scan.digest]).encode())
    content.update(scan.rows.tobytes() + scan.captions.tobytes())
    kept = {"images": len(scan.rows), "captions": int(scan.captions.sum())}
    counts = {**scan.counts, **kept}
    return Shard(
        path=path,
        size=scan.size,
        modified_ns=scan.modified_ns,
        content=content.hexdigest(),
        removed=False,
        counts={name: count for name, count in counts.items() if count},
    )


def _why_empty(
    shards: Sequence[Shard], unreadable: Mapping[str, str], complaints: Mapping[str, str]
) -> str:
    live = [shard for shard in shards if not shard.removed]
    if not live:
        others = len(unreadable) - 1
        more = f" (and {others} more shards cannot be used)" if others else ""
        return f"{next(iter(unreadable.values()))}{more}"
    counts = sum((Counter(shard.counts) for shard in live), Counter())
    found = ", ".join(f"{name} {count:,}" for name, count in counts.items()) or "nothing"
    path, complaint = next(iter(complaints.items()), (live[0].path, found))
    return f"no image with a caption in {len(live)} shards ({found}); {path}: {complaint}"
