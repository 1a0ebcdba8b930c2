"""Scans shards, in several processes where that pays."""

import functools
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import get_context

from nlip_jax.data.formats.base import Format, Scan
from nlip_jax.data.storage import Storage
from nlip_jax.data.worker_process import die_with_parent
from nlip_jax.errors import RunError, UsageError

_BYTES_PER_PROCESS = 1 << 26  # of shards; fewer are read sooner than a process starts
_TURNS = 8  # of every process, so that none waits long for another


def scan_all(
    paths: Sequence[str],
    format: Format,
    storage: Storage,
    *,
    num_bytes: int,
    workers: int | None = None,
) -> Iterator[Scan | str]:
    """Scans shards.

    Args:
      paths: the shards.
      format: theirs.
      storage: where they are.
      num_bytes: size of all of them.
      workers: processes that scan; None takes as many as pay, at most one for each core; with 0
        and 1 this one scans.

    Yields:
      For each shard what it holds, or why it cannot be read.

    Raises:
      RunError: a process was lost.
    """
    scan = functools.partial(_scan, format=format, storage=storage)
    if workers is None:
        workers = min(os.cpu_count() or 1, 1 + num_bytes // _BYTES_PER_PROCESS)
    workers = min(workers, len(paths))
    if workers <= 1:
        yield from map(scan, paths)
        return
    chunk = max(1, len(paths) // (workers * _TURNS))
    try:
        with ProcessPoolExecutor(
            workers, get_context("spawn"), initializer=die_with_parent
        ) as pool:
            yield from pool.map(scan, paths, chunksize=min(chunk, _TURNS))
    except BrokenProcessPool as error:
        raise RunError(
            "a process that scans shards was lost: it may have run out of memory; use fewer workers"
        ) from error


def _scan(path: str, *, format: Format, storage: Storage) -> Scan | str:
    """Reasons come back as values: one bad shard does not stop the others."""
    try:
        return format.scan(path, storage)
    except UsageError as error:
        return str(error)
    except OSError as error:
        return f"shard {path} cannot be read ({error.strerror or error})"
