"""What several formats need to read files: streams, images by their path, sizes that hold."""

import errno
import io
import posixpath

from nlip_jax.data.failures import ReadError
from nlip_jax.data.storage import File, Storage
from nlip_jax.errors import UsageError

_IMAGE_NAMES = (".jpg", ".jpeg", ".png", ".webp", ".gif", ".bmp")

_MAX_IMAGE = 1 << 32  # bytes
_NO_FILE = (errno.ENOENT, errno.EISDIR, errno.ENOTDIR, errno.ENAMETOOLONG, errno.ELOOP)


def is_image_name(name: str) -> bool:
    """Whether a name ends as those of images do."""
    return name.lower().endswith(_IMAGE_NAMES)


def resolve(path: str, *, shard: str, root: str) -> str:
    """The path of an image that a table or a captions file names.

    Args:
      path: absolute, with a scheme such as "gs://", or relative to `root`; it may lead anywhere.
      shard: the file that names it.
      root: the folder relative paths start from; empty takes the folder of `shard`.
    """
    return path if "://" in path else posixpath.join(root or posixpath.dirname(shard), path)


def read_image_file(path: str, storage: Storage) -> bytes:
    """A whole image file.

    Raises:
      ReadError: there is no such file, or it is empty, cannot be read, or has 4 GiB and more.
    """
    try:
        file = storage.open(path)
        try:
            size = file.status.size
            if size >= _MAX_IMAGE:
                raise ReadError("not_an_image", f"a file of {size} bytes")
            data = file.read(0, size)
        finally:
            file.close()
    except (OSError, ValueError, UsageError) as error:
        # Not OSError: NUL or half surrogates in a path; a scheme without a file system.
        missing = not isinstance(error, OSError) or _no_file(error)
        kind = "missing_image" if missing else "shard_unreadable"
        raise ReadError(kind, f"{path!r} cannot be read ({error})") from error
    return checked(data, size)


def _no_file(error: OSError) -> bool:
    return isinstance(error, FileNotFoundError) or error.errno in _NO_FILE


def read_part(file: File, offset: int, length: int) -> bytes:
    """A part of a shard.

    Raises:
      ReadError: it cannot be read, or the shard ends before it does.
    """
    try:
        data = file.read(offset, length)
    except OSError as error:
        raise ReadError("shard_unreadable", f"{file.path} cannot be read ({error})") from error
    return checked(data, length) if length else data


def checked(data: bytes, size: int) -> bytes:
    """The bytes of an image or another part, if they are as many as they should be, and any.

    Raises:
      ReadError: too few, or none.
    """
    if len(data) < size:
        raise ReadError("missing_bytes", f"{size - len(data)} of {size} bytes are missing")
    if not data:
        raise ReadError("empty_image", "0 bytes")
    return data


def open_stream(file: File, buffer_size: int = 1 << 20) -> io.BufferedReader:
    """A `File` as libraries want it, with a position; streams may share the file.

    Args:
      file: stays open when the stream is closed.
      buffer_size: bytes that are read at once.
    """
    return io.BufferedReader(_Stream(file), buffer_size)


def read_text_file(path: str, storage: Storage) -> str:
    """A text file of an evaluation set, whole, in UTF-8.

    Raises:
      UsageError: it is not there, or no UTF-8.
    """
    try:
        file = storage.open(path)
        try:
            return file.read(0, file.status.size).decode("utf-8-sig")
        finally:
            file.close()
    except (OSError, ValueError) as error:
        raise UsageError(
            f"{path} cannot be read ({getattr(error, 'strerror', None) or error}); "
            "configs/EVALUATION_SETS.md says how a set has to lie"
        ) from error


class _Stream(io.RawIOBase):
    def __init__(self, file: File) -> None:
        super().__init__()
        self._file, self._position = file, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._position

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._file.status.size}
        self._position = max(0, base[whence] + offset)
        return self._position

    def readinto(self, buffer: memoryview) -> int:
        data = self._file.read(self._position, len(buffer))
        buffer[: len(data)] = data
        self._position += len(data)
        return len(data)
