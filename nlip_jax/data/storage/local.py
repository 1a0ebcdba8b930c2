"""Files of this machine, or of disks mounted on it."""

import glob
import os

from nlip_jax.data.storage.files import Status


class LocalFile:
    """Reads at a place without moving a position, so threads do not disturb one another."""

    def __init__(self, path: str) -> None:
        self.path = path
        # Without O_NONBLOCK a named pipe would be waited for, for ever.
        self._descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        found = os.fstat(self._descriptor)
        self.status = Status(found.st_size, found.st_mtime_ns)

    def read(self, offset: int, length: int) -> bytes:
        """Bytes from a place on; fewer where the file ends."""
        return os.pread(self._descriptor, length, offset)

    def close(self) -> None:
        """Lets go of it."""
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor >= 0:
            os.close(descriptor)

    def __del__(self) -> None:
        if hasattr(self, "_descriptor"):
            self.close()


def local_status(path: str) -> Status:
    """Size and modification time.

    Raises:
      OSError: it is not there.
    """
    found = os.stat(path)
    return Status(found.st_size, found.st_mtime_ns)


def local_glob(pattern: str) -> list[str]:
    """Existing files of a name or a pattern with wildcards, sorted."""
    names = [pattern] if os.path.exists(pattern) else glob.glob(pattern, recursive=True)
    return sorted(name for name in names if os.path.isfile(name))
