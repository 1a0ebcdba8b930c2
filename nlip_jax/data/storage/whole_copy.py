"""Whole copies of remote files, for libraries that open local paths only."""

import fcntl
import os
from typing import BinaryIO

from nlip_jax.data.storage.cache import UNFINISHED, DiskCache, cache_name
from nlip_jax.data.storage.files import Status
from nlip_jax.data.storage.remote import Remote
from nlip_jax.errors import UsageError

_PIECE = 16 << 20  # bytes of a request


def copy_here(path: str, status: Status, remote: Remote, cache: DiskCache) -> str:
    """The local path of a whole copy, made unless it is there.

    Of several processes that ask for it one fetches and the others wait.

    Args:
      path: of the remote file.
      status: of it.
      remote: fetches.
      cache: keeps.

    Raises:
      UsageError: it is larger than the cache.
      OSError: it does not come, or finds no room on disk.
    """
    if cache.max_bytes and status.size > cache.max_bytes:
        raise UsageError(
            f"{path} has {status.size:,} bytes and its copy finds no place in {cache.folder}, "
            f"which may hold {cache.max_bytes:,}: raise data.storage.cache_bytes"
        )
    name = f"{cache_name(path, status)}-{os.path.basename(path)}"
    target = cache.copy_path(name)
    while not _is_whole(target, status, cache):
        with open(target + UNFINISHED, "ab") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            # While waiting for the lock, another process may have renamed or removed the file.
            if _is_same(file, target + UNFINISHED) and not _is_whole(target, status, cache):
                file.truncate(0)
                for start in range(0, status.size, _PIECE):
                    stop = min(start + _PIECE, status.size)
                    file.write(remote.fetch(path, start, stop))
                file.flush()
                os.fsync(file.fileno())
                os.rename(target + UNFINISHED, target)
                cache.written(target, status.size)
    return target


def _is_whole(target: str, status: Status, cache: DiskCache) -> bool:
    try:
        found = os.stat(target)
    except FileNotFoundError:
        return False
    if found.st_size != status.size:
        return False
    cache.touch(target, found)
    return True


def _is_same(file: BinaryIO, path: str) -> bool:
    try:
        return os.path.samestat(os.fstat(file.fileno()), os.stat(path))
    except FileNotFoundError:
        return False
