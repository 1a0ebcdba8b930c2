"""The index of a set of tar shards: every image and its captions at random access, no copy.

`rows.npy` has one `ROW` per image, `caption_starts.npy` the number of its first caption: 28 bytes
an image, both memory-mapped, so that worker processes share them and opening costs nothing.
`meta.json` says what they were made of.
"""

import functools
import hashlib
import itertools
import json
import os
import shutil
import uuid
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import BinaryIO

import numpy as np

from nlip_jax.data.captions import caption_member
from nlip_jax.data.scan import COUNTS, IMAGE_EXTENSIONS, ROW, Scan, describe_sample, scan_shard
from nlip_jax.data.shards import INDEX_AGAIN, Shard
from nlip_jax.data.worker_process import die_with_parent
from nlip_jax.errors import UsageError

FORMAT = 1
_META, _ROWS, _STARTS = "meta.json", "rows.npy", "caption_starts.npy"
_FILES = {_META, _ROWS, _STARTS}
_SHARDS_PER_WORKER = 16  # fewer are read sooner than a process starts


@dataclass(frozen=True, eq=False)
class Index:
    """An opened index.

    Attributes:
      directory: where it is.
      caption_key: see `caption_member`.
      fingerprint: hexadecimal; the same for copies of the same shards.
      shards: the tar files, in order.
      counts: what was kept and what was left out, see `scan_shard`.
      rows: `[n]` ROW, where every image and its caption member lie.
      caption_starts: `[n + 1]` int64; image i has the captions numbered from caption_starts[i]
        to caption_starts[i + 1].
    """

    directory: str
    caption_key: str
    fingerprint: str
    shards: tuple[Shard, ...]
    counts: dict[str, int]
    rows: np.ndarray
    caption_starts: np.ndarray

    @classmethod
    def open(cls, directory: str | os.PathLike) -> "Index":
        """Opens an index; its arrays stay on disk.

        Raises:
          UsageError: the directory holds no index, or one that cannot be read.
        """
        path = Path(directory).absolute()
        if not (path / _META).is_file():
            raise UsageError(f"{path} holds no index: make it with `python -m nlip_jax index`")
        try:
            meta = json.loads((path / _META).read_text(encoding="utf-8"))
            if meta["format"] != FORMAT:
                raise ValueError(f"format {meta['format']}, this version reads {FORMAT}")
            return cls(
                directory=str(path),
                caption_key=meta["caption_key"],
                fingerprint=meta["fingerprint"],
                shards=tuple(Shard(**shard) for shard in meta["shards"]),
                counts=meta["counts"],
                rows=_map(path / _ROWS),
                caption_starts=_map(path / _STARTS),
            )
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise UsageError(
                f"the index in {path} cannot be used ({error}): {INDEX_AGAIN}"
            ) from error

    def __reduce__(self):
        """Travels as its place, not as its arrays."""
        return _reopen, (self.directory, self.fingerprint)

    def check(self, *, shards: Sequence[str] | None = None, caption_key: str | None = None) -> None:
        """Makes sure that the index is of what was asked for, and that the shards are unchanged.

        Args:
          shards: the shards asked for, in order; None takes those of the index.
          caption_key: the caption key asked for; None takes that of the index.

        Raises:
          UsageError: another caption key or list of shards, or a shard that is gone or changed.
        """
        if caption_key not in (None, self.caption_key):
            raise UsageError(
                f"the index in {self.directory} is for caption_key {self.caption_key!r}, asked "
                f"for is {caption_key!r}: {INDEX_AGAIN} or name another directory"
            )
        indexed = [shard.path for shard in self.shards]
        asked = indexed if shards is None else [os.path.abspath(path) for path in shards]
        if asked != indexed:
            pairs = itertools.zip_longest(indexed, asked, fillvalue="none")
            number, (there, here) = next((n, p) for n, p in enumerate(pairs) if p[0] != p[1])
            raise UsageError(
                f"the index in {self.directory} has {len(indexed)} shards, asked for are "
                f"{len(asked)}; shard {number} is {there} there, {here} here: {INDEX_AGAIN} "
                "or name another directory"
            )
        for shard in self.shards:
            try:
                status = os.stat(shard.path)
            except OSError as error:
                raise UsageError(
                    f"shard {shard.path} cannot be read any more ({error.strerror}): "
                    f"bring it back or {INDEX_AGAIN}"
                ) from error
            shard.check(status)


def build_index(
    shards: Sequence[str],
    caption_key: str,
    directory: str | os.PathLike,
    *,
    workers: int | None = None,
) -> Index:
    """Scans shards once and writes their index; an older index in the directory is replaced.

    Args:
      shards: uncompressed tars, in the order that numbers images; see `expand_shards`.
      caption_key: see `caption_member`.
      directory: where the index goes; it appears there whole or not at all.
      workers: processes that scan; None takes as many as there are cores, but at most one for
        16 shards; 1 scans here.

    Returns:
      The index, opened.

    Raises:
      UsageError: a shard that is no whole, uncompressed tar; no image; no caption; a directory
        with other files in it.
    """
    caption_member(caption_key)
    target = Path(directory).absolute()
    if target.exists() and not (target.is_dir() and _FILES.issuperset(os.listdir(target))):
        raise UsageError(f"{target} is no place for an index, it holds other things: name another")
    if not shards:
        raise UsageError("there are no shards to index: name some")
    paths = [os.path.abspath(path) for path in shards]
    if workers is None:
        workers = min(os.cpu_count(), len(paths) // _SHARDS_PER_WORKER)
    scans, problems = [], []
    for result in _scan_all(paths, caption_key, workers):
        (problems if isinstance(result, UsageError) else scans).append(result)
    if problems:
        more = f" (and {len(problems) - 1} more shards cannot be used)" if problems[1:] else ""
        raise UsageError(f"{problems[0]}{more}")
    counts = sum((scan.counts for scan in scans), Counter())
    if not counts["images"]:
        raise UsageError(_why_empty(scans, counts, caption_key))
    try:
        _write(target, scans, caption_key, counts)
    except OSError as error:
        raise UsageError(f"the index cannot be written: {error}") from error
    return Index.open(target)


def _map(path: Path) -> np.ndarray:
    """A memory-mapped array; as a plain view, since `np.memmap` makes every small read slow."""
    return np.load(path, mmap_mode="r").view(np.ndarray)


def _reopen(directory: str, fingerprint: str) -> Index:
    index = Index.open(directory)
    if index.fingerprint != fingerprint:
        raise UsageError(f"the index in {directory} was replaced while in use: start again")
    return index


def _scan_all(paths: list[str], caption_key: str, workers: int) -> Iterator[Scan | UsageError]:
    scan = functools.partial(_try_scan, caption_key=caption_key)
    if workers <= 1:
        yield from map(scan, paths)
        return
    with ProcessPoolExecutor(workers, get_context("spawn"), initializer=die_with_parent) as pool:
        yield from pool.map(scan, paths)


def _try_scan(path: str, caption_key: str) -> Scan | UsageError:
    """Errors come back as values, so that one message can count them all."""
    try:
        return scan_shard(path, caption_key)
    except UsageError as error:
        return error


def _why_empty(scans: list[Scan], counts: Counter, caption_key: str) -> str:
    reasons = ("without_caption", "unreadable_caption", "blank_caption")
    left_out = {reason: counts[reason] for reason in reasons if counts[reason]}
    if not left_out:
        extensions = " ".join(f".{extension}" for extension in IMAGE_EXTENSIONS)
        unusable = f"; {n} are empty or over 4 GiB" if (n := counts["unusable_image"]) else ""
        path = scans[0].shard.path
        what = f"no image ({extensions}) in {len(scans)} shards{unusable}"
        return f"{what}; {path}: {describe_sample(path)}"
    first = next(scan for scan in scans if scan.complaint)
    path = first.shard.path
    if set(left_out) == {"without_caption"}:
        what = f"no caption for caption_key={caption_key!r} in {len(scans)} shards"
        return f"{what}; {path}: {describe_sample(path)}"
    numbers = ", ".join(f"{number} {reason}" for reason, number in left_out.items())
    what = f"no caption could be read for caption_key={caption_key!r} in {len(scans)} shards"
    return f"{what} ({numbers}); {path}: {first.complaint}"


def _write(target: Path, scans: list[Scan], caption_key: str, counts: Counter) -> None:
    """Makes the whole index beside its place and moves it there."""
    stage = target.with_name(f".{target.name}.{uuid.uuid4().hex}")
    new = stage / "new"
    new.mkdir(parents=True)
    try:
        meta = {
            "format": FORMAT,
            "caption_key": caption_key,
            "fingerprint": _write_arrays(new, scans, caption_key, counts["images"]),
            "counts": {name: counts[name] for name in COUNTS},
            "shards": [asdict(scan.shard) for scan in scans],
        }
        (new / _META).write_text(json.dumps(meta, indent=1), encoding="utf-8")
        for path in [*new.iterdir(), new]:
            _sync(path)
        if target.exists():
            os.rename(target, stage / "old")
        os.rename(new, target)
        _sync(target.parent)
    finally:
        shutil.rmtree(stage)


def _write_arrays(folder: Path, scans: list[Scan], caption_key: str, num_images: int) -> str:
    """Writes rows and caption starts; returns the fingerprint."""
    digest = hashlib.blake2b(json.dumps([FORMAT, caption_key]).encode(), digest_size=16)
    with open(folder / _ROWS, "wb") as rows, open(folder / _STARTS, "wb") as starts:
        _write_header(rows, ROW, num_images)
        _write_header(starts, np.dtype("<i8"), num_images + 1)
        start = 0
        starts.write(np.int64(start).tobytes())
        for number, scan in enumerate(scans):
            scan.rows["shard"] = number
            rows.write(scan.rows.tobytes())
            starts.write((start + np.cumsum(scan.captions, dtype=np.int64)).tobytes())
            start += scan.counts["captions"]
            # Names and sizes without folders and times, so that copies agree.
            identity = [os.path.basename(scan.shard.path), scan.shard.size, scan.digest]
            digest.update(json.dumps(identity).encode() + scan.rows.tobytes())
    return digest.hexdigest()


def _write_header(file: BinaryIO, dtype: np.dtype, count: int) -> None:
    """Begins a .npy file whose rows are written piece by piece."""
    descr = np.lib.format.dtype_to_descr(dtype)
    header = {"descr": descr, "fortran_order": False, "shape": (count,)}
    np.lib.format.write_array_header_1_0(file, header)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
