"""What a file is, wherever it lies."""

from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True)
class Status:
    """What tells that a file changed.

    Attributes:
      size: bytes.
      modified_ns: of a local file the modification time in nanoseconds; of a remote one a 63-bit
        number made of its generation, ETag or modification time, the first of them that its store
        tells (0: it tells none, so that only the size can).
    """

    size: int
    modified_ns: int


class File(Protocol):
    """An open file; threads may share it."""

    path: str
    status: Status

    def read(self, offset: int, length: int) -> bytes:
        """Bytes from a place on; fewer where the file ends.

        Raises:
          OSError: it cannot be read.
        """
        ...

    def close(self) -> None:
        """Lets go of it; harmless when repeated."""
        ...
