"""A remote file without a cache on disk: as few requests as its reader's habits allow."""

import threading
from collections import deque

from nlip_jax.data.storage.files import Status
from nlip_jax.data.storage.remote import Remote

_LEAST_AHEAD = 1 << 16  # bytes; sooner there than a second request, for a caption say
_MOST_AHEAD = 4 << 20
_KEPT = 4  # answers in memory


class ReadAheadFile:
    """Fetches more than is asked for while reads go forward, and little more after a jump.

    Whoever scans the headers of a tar reads 512 bytes and skips an image, again and again: after a
    few reads a request brings 4 MiB. Whoever reads examples at random gets each with 64 KiB behind
    it, where its caption usually lies.
    """

    def __init__(self, path: str, status: Status, remote: Remote) -> None:
        self.path, self.status = path, status
        self._remote = remote
        self._lock = threading.Lock()
        self._pieces: deque[tuple[int, bytes]] = deque(maxlen=_KEPT)  # (offset, bytes)
        self._last = (0, 0)  # where the newest piece starts and ends
        self._ahead = _LEAST_AHEAD

    def read(self, offset: int, length: int) -> bytes:
        """Bytes from a place on; fewer where the file ends."""
        stop = min(offset + length, self.status.size)
        if stop <= offset:
            return b""
        with self._lock:
            for start, data in self._pieces:
                if start <= offset and stop <= start + len(data):
                    return data[offset - start : stop - start]
            forward = self._last[0] <= offset <= self._last[1] + _MOST_AHEAD
            self._ahead = min(2 * self._ahead, _MOST_AHEAD) if forward else _LEAST_AHEAD
            end = min(stop + self._ahead, self.status.size)
            self._last = (offset, end)
        data = self._remote.fetch(self.path, offset, end)
        with self._lock:
            self._pieces.append((offset, data))
        return data[: stop - offset]

    def close(self) -> None:
        """Lets go of what it kept."""
        with self._lock:
            self._pieces.clear()
