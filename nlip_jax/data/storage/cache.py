"""Parts and copies of remote files on a local disk, shared by all processes of a machine.

`blocks/` has parts of files, each followed by its checksum, `copies/` whole files. Names come from
path, size and version of the remote file, so a changed file never meets its old parts. Everything
is written aside and renamed: a kill leaves nothing but a temporary file, which a later sweep
removes. What was not used for longest goes when the bound is passed.
"""

import contextlib
import functools
import hashlib
import os
import re
import tempfile
import threading
import time

from nlip_jax.data.storage.files import Status
from nlip_jax.errors import UsageError

UNFINISHED = ".tmp"
# Names that it gives: what others put beside its files, or had there before, is not swept away.
_OURS = re.compile(r"[0-9a-f]{32}(-.+)?|tmp\w{8}\.tmp", re.DOTALL)
_ABANDONED_SECONDS = 3600
_TOUCH_SECONDS = 60  # precision of "last used"
_SWEEPS = 16  # one for each 1/16 of the bound written
_ROOM = 0.9  # share of the bound that a sweep leaves


@functools.cache
def open_cache(folder: str, max_bytes: int) -> "DiskCache":
    """The cache of this process in a folder."""
    return DiskCache(folder, max_bytes)


def cache_name(path: str, status: Status, *part: object) -> str:
    """Hexadecimal; another one for each file, version of it, and part."""
    identity = repr([path, status.size, status.modified_ns, *part])
    return hashlib.blake2b(identity.encode(), digest_size=16).hexdigest()


class DiskCache:
    """A folder of files with a bound.

    Args:
      folder: made where it does not exist.
      max_bytes: of all files; may be passed by 1/16 for each process that writes. 0: no bound.

    Raises:
      UsageError: the folder cannot be written.
    """

    def __init__(self, folder: str, max_bytes: int) -> None:
        self.folder, self.max_bytes = os.path.abspath(os.path.expanduser(folder)), max_bytes
        self._lock = threading.Lock()
        self._unswept = max_bytes  # bytes written since the last sweep: the first one is due
        try:
            for kind in ("blocks", "copies"):
                os.makedirs(os.path.join(self.folder, kind), exist_ok=True)
            tempfile.TemporaryFile(dir=self.folder).close()
        except OSError as error:
            raise UsageError(
                f"the cache folder {self.folder} cannot be written: {error.strerror}"
            ) from error

    def block_path(self, name: str) -> str:
        """Where a block of this name lies; spread over 256 folders."""
        return os.path.join(self.folder, "blocks", name[:2], name)

    def copy_path(self, name: str) -> str:
        """Where a whole file of this name lies."""
        return os.path.join(self.folder, "copies", name)

    def store(self, path: str, *parts: bytes) -> os.stat_result:
        """Writes a file of the cache; readers see all of it or nothing.

        Raises:
          OSError: it cannot be written.
        """
        os.makedirs(os.path.dirname(path), exist_ok=True)
        descriptor, temporary = tempfile.mkstemp(UNFINISHED, dir=os.path.dirname(path))
        try:
            with open(descriptor, "wb") as file:
                file.writelines(parts)
                file.flush()
                status = os.fstat(descriptor)
            os.rename(temporary, path)
        except BaseException:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(temporary)
            raise
        self.written(path, status.st_size)
        return status

    def written(self, path: str, size: int) -> None:
        """Counts a new file, and makes room if it is time."""
        with self._lock:
            self._unswept += size
            due = self.max_bytes and self._unswept * _SWEEPS >= self.max_bytes
            if due:
                self._unswept = 0
        if due:
            self._sweep(keep=path)

    def touch(self, path: str, status: os.stat_result) -> None:
        """Notes that a file is used: its access time, whatever the file system does with it."""
        now = time.time_ns()
        if now - status.st_atime_ns > _TOUCH_SECONDS * 10**9:
            with contextlib.suppress(FileNotFoundError):  # swept meanwhile
                os.utime(path, ns=(now, status.st_mtime_ns))

    def _sweep(self, keep: str) -> None:
        now, files = time.time(), []
        for kind in ("blocks", "copies"):
            for folder, _, names in os.walk(os.path.join(self.folder, kind)):
                for path in (os.path.join(folder, n) for n in names if _OURS.fullmatch(n)):
                    with contextlib.suppress(FileNotFoundError):
                        status = os.stat(path)
                        if not path.endswith(UNFINISHED):
                            files.append((status.st_atime_ns, status.st_size, path))
                        elif now - status.st_mtime > _ABANDONED_SECONDS:
                            os.unlink(path)
        total = sum(size for _, size, _ in files)
        if total <= self.max_bytes:
            return
        for _, size, path in sorted(files):
            if total <= _ROOM * self.max_bytes:
                break
            if path != keep:
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(path)
                total -= size
