"""The files of an index: what is in them, and why a kill at any moment leaves a good index.

`rows.bin` has a row of the format's dtype for each image, `caption_starts.bin` the number of its
first caption as int64 and one more at the end: at most 32 bytes an image. Both only ever grow.
`meta.json` says how much of them counts; it is replaced at once and last.
"""

import ast
import contextlib
import fcntl
import json
import os
from collections.abc import Iterator
from dataclasses import astuple, dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from nlip_jax.data.formats.base import Format, Scan
from nlip_jax.data.index.shards import Shard
from nlip_jax.errors import UsageError
from nlip_jax.files import write_atomically

VERSION = 2
META, ROWS, STARTS = "meta.json", "rows.bin", "caption_starts.bin"
START = np.dtype("<i8")
INDEX_AGAIN = "run `python -m nlip_jax index` again"


@dataclass(frozen=True)
class Meta:
    """What `meta.json` says.

    Attributes:
      format: name of the format.
      identity: options of it that decide what the rows are.
      row: dtype of a row.
      shards: in the order of their images; those that are gone are in it, too.
      unreadable: paths of shards that are left out -> why.
    """

    format: str
    identity: dict[str, Any]
    row: np.dtype
    shards: tuple[Shard, ...]
    unreadable: dict[str, str]

    @classmethod
    def empty(cls, format: Format) -> "Meta":
        """That of an index without shards."""
        return cls(format.name, format.identity(), format.row, (), {})

    @property
    def num_images(self) -> int:
        """Images of all shards."""
        return sum(shard.num_images for shard in self.shards)

    def check_format(self, format: Format, directory: Path) -> None:
        """Makes sure that the index is of a format.

        Raises:
          UsageError: it is of another one, or of other options of it.
        """
        mine, asked = (self.format, self.identity), (format.name, format.identity())
        if mine != asked or self.row != format.row:
            raise UsageError(
                f"the index in {directory} is for {_words(*mine)}, asked for is "
                f"{_words(*asked)}: name another directory, or remove it and {INDEX_AGAIN}"
            )


def is_index(directory: str | os.PathLike) -> bool:
    """Whether there is an index in a directory."""
    return (Path(directory) / META).is_file()


def is_place(directory: Path) -> bool:
    """Whether an index may go there: nothing else is in it."""
    if not directory.exists():
        return True
    return directory.is_dir() and all(
        name in (ROWS, STARTS) or name.startswith(META) for name in os.listdir(directory)
    )


def read_meta(directory: Path) -> Meta:
    """Reads what the index says of itself.

    Raises:
      UsageError: there is none, or it cannot be used.
    """
    if not is_index(directory):
        raise UsageError(f"{directory} holds no index: make it with `python -m nlip_jax index`")
    try:
        meta = json.loads((directory / META).read_text(encoding="utf-8"))
        if meta["version"] != VERSION:
            raise ValueError(f"version {meta['version']}, this is {VERSION}")
        return Meta(
            format=meta["format"],
            identity=meta["identity"],
            row=np.lib.format.descr_to_dtype(ast.literal_eval(meta["row"])),
            shards=tuple(Shard(*shard) for shard in meta["shards"]),
            unreadable=meta["unreadable"],
        )
    except (OSError, ValueError, KeyError, TypeError, SyntaxError) as error:
        raise unusable(directory, error) from error


def write_meta(directory: Path, meta: Meta) -> None:
    """Makes what was appended count."""
    content = {
        "version": VERSION,
        "format": meta.format,
        "identity": meta.identity,
        "row": repr(np.lib.format.dtype_to_descr(meta.row)),
        "unreadable": meta.unreadable,
        "shards": [astuple(shard) for shard in meta.shards],  # fields as in `Shard`
    }
    write_atomically(directory / META, json.dumps(content, separators=(",", ":")).encode())


def unusable(directory: Path, error: Exception) -> UsageError:
    """The error of a damaged index."""
    return UsageError(
        f"the index in {directory} cannot be used ({error}): remove it and {INDEX_AGAIN}"
    )


def map_array(path: Path, dtype: np.dtype, length: int) -> np.ndarray:
    """The beginning of a file, `[length]`, on disk.

    As a plain array, since `np.memmap` makes every small read slow.

    Raises:
      OSError, ValueError: the file is not there or too short.
    """
    return np.memmap(path, dtype, mode="r", shape=(length,)).view(np.ndarray)


class Appender:
    """Writes rows behind those that count.

    Args:
      directory: of the index.
      row: dtype of a row.
      num_images: that count.
    """

    def __init__(self, directory: Path, row: np.dtype, num_images: int) -> None:
        if num_images == 0:
            (directory / STARTS).write_bytes(np.zeros(1, START).tobytes())
        try:
            self._next = int(map_array(directory / STARTS, START, num_images + 1)[-1])
            self._rows = _open_at(directory / ROWS, num_images * row.itemsize)
            self._starts = _open_at(directory / STARTS, (num_images + 1) * START.itemsize)
        except (OSError, ValueError) as error:
            raise unusable(directory, error) from error

    def __enter__(self) -> "Appender":
        return self

    def __exit__(self, *_) -> None:
        self._rows.close()
        self._starts.close()

    def append(self, scan: Scan) -> None:
        """Writes the images of a shard."""
        starts = self._next + np.cumsum(scan.captions, dtype=START)
        self._rows.write(scan.rows.tobytes())
        self._starts.write(starts.tobytes())
        self._next = int(starts[-1]) if len(starts) else self._next

    def sync(self) -> None:
        """Waits until everything is on disk."""
        for file in (self._rows, self._starts):
            file.flush()
            os.fsync(file.fileno())


@contextlib.contextmanager
def locked(directory: Path) -> Iterator[None]:
    """Waits until nobody else writes the index."""
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _open_at(path: Path, size: int) -> BinaryIO:
    """Opens a file behind its first bytes; the others are from an update that was killed."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
    file = os.fdopen(descriptor, "r+b")
    if os.fstat(descriptor).st_size < size:
        file.close()
        raise ValueError(f"{path.name} is too short")
    file.truncate(size)
    file.seek(size)
    return file


def _words(name: str, identity: dict[str, Any]) -> str:
    options = ", ".join(f"{key}={value!r}" for key, value in identity.items())
    return f"{name} ({options})"
