"""A remote file read through the cache on disk, block by block."""

import functools
import hashlib
import logging
import os

from nlip_jax.data.storage.cache import DiskCache, cache_name
from nlip_jax.data.storage.files import Status
from nlip_jax.data.storage.remote import Remote

BLOCK = 4 << 20  # bytes; about what arrives in the time that a store takes to answer
_CHECKSUM = 16  # bytes behind a block

_LOG = logging.getLogger(__name__)


class BlockFile:
    """Fetches whole blocks of 4 MiB and keeps them on disk.

    A block on disk is checked against its checksum when this file first uses it, and again when it
    changed since; one that fails is fetched anew.
    """

    def __init__(self, path: str, status: Status, remote: Remote, cache: DiskCache) -> None:
        self.path, self.status = path, status
        self._remote, self._cache = remote, cache
        self._trusted: dict[int, tuple[int, int]] = {}  # block -> inode and mtime when checked
        self._unkept: tuple[int, bytes] = (-1, b"")  # the last block that found no place on disk

    def read(self, offset: int, length: int) -> bytes:
        """Bytes from a place on; fewer where the file ends."""
        stop = min(offset + length, self.status.size)
        if stop <= offset:
            return b""
        pieces = [
            self._read(number, max(offset - number * BLOCK, 0), min(stop - number * BLOCK, BLOCK))
            for number in range(offset // BLOCK, -(-stop // BLOCK))
        ]
        return b"".join(pieces)

    def close(self) -> None:
        """Lets go of what it kept."""
        self._unkept = (-1, b"")

    def _read(self, number: int, start: int, stop: int) -> bytes:
        """A part of one block."""
        unkept, block = self._unkept
        if unkept == number:
            return block[start:stop]
        path = self._cache.block_path(cache_name(self.path, self.status, number, BLOCK))
        data = self._from_disk(path, number, start, stop)
        if data is not None:
            return data
        block = self._remote.fetch(self.path, number * BLOCK, number * BLOCK + self._size(number))
        try:
            stored = self._cache.store(path, block, _checksum(block))
        except OSError as error:
            _warn_once(self._cache.folder, error.strerror)
            self._unkept = (number, block)
        else:
            self._trusted[number] = _identity(stored)
        return block[start:stop]

    def _from_disk(self, path: str, number: int, start: int, stop: int) -> bytes | None:
        """A part of a block, None where it is not on disk or not as it was written."""
        try:
            descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            return None
        try:
            found = os.fstat(descriptor)
            if self._trusted.get(number) != _identity(found):
                whole = os.pread(descriptor, found.st_size, 0)
                block, checksum = whole[:-_CHECKSUM], whole[-_CHECKSUM:]
                if len(block) != self._size(number) or _checksum(block) != checksum:
                    return None
                self._trusted[number] = _identity(found)
            self._cache.touch(path, found)
            data = os.pread(descriptor, stop - start, start)
            return data if len(data) == stop - start else None
        except OSError:
            return None
        finally:
            os.close(descriptor)

    def _size(self, number: int) -> int:
        return min(BLOCK, self.status.size - number * BLOCK)


def _identity(status: os.stat_result) -> tuple[int, int]:
    return status.st_ino, status.st_mtime_ns


def _checksum(block: bytes) -> bytes:
    return hashlib.blake2b(block, digest_size=_CHECKSUM).digest()


@functools.cache
def _warn_once(folder: str, reason: str) -> None:
    _LOG.warning("nothing more can be kept in the cache folder %s: %s", folder, reason)
