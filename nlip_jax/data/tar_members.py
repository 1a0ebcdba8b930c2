"""What lies where in a tar file that is read in place."""

import os
import tarfile
from collections.abc import Iterator
from typing import BinaryIO

from nlip_jax.errors import UsageError

BLOCK = tarfile.BLOCKSIZE  # every member starts on a block, so offsets fit into 32 bits

_MAX_SIZE = BLOCK << 32
_COMPRESSED = {b"\x1f\x8b": "gzip", b"BZh": "bzip2", b"\xfd7zXZ": "xz", b"\x28\xb5\x2f\xfd": "zstd"}
_REMEDY = "make it again or leave it out"


def tar_members(path: str, file: BinaryIO) -> Iterator[tarfile.TarInfo]:
    """Yields the plain files of an uncompressed tar, and makes sure that the tar is whole.

    Args:
      path: for messages.
      file: the tar, at its beginning.

    Raises:
      UsageError: no tar, a compressed one, or one that is cut short or damaged.
    """
    size = os.fstat(file.fileno()).st_size
    if size >= _MAX_SIZE:
        raise UsageError(f"shard {path} has {size} bytes, the limit is {_MAX_SIZE}: split it")
    try:
        tar = tarfile.TarFile(fileobj=file)
    except tarfile.TarError as error:
        raise UsageError(_no_tar(path, file, size)) from error
    try:
        for member in tar:
            if member.isreg() and not member.issparse():
                yield member
    except (tarfile.TarError, ValueError, OverflowError) as error:
        raise UsageError(
            f"shard {path} is truncated or damaged near byte {tar.offset} ({error}): {_REMEDY}"
        ) from error
    _check_end(path, file, tar.offset)


def split_name(name: str) -> tuple[str, str]:
    """Splits "folder/000.jpg" into the key of the sample, "folder/000", and "jpg"."""
    folder, slash, base = name.rpartition("/")
    stem, _, extension = base.partition(".")
    return folder + slash + stem, extension.lower()


def payload(file: BinaryIO, member: tarfile.TarInfo) -> bytes:
    """The content of a member; the position in the file stays."""
    return os.pread(file.fileno(), member.size, member.offset_data)


def _no_tar(path: str, file: BinaryIO, size: int) -> str:
    head = os.pread(file.fileno(), 8, 0)
    for magic, method in _COMPRESSED.items():
        if head.startswith(magic):
            return f"shard {path} is compressed ({method}): decompress it, tars are read in place"
    if size == 0:
        return f"shard {path} is truncated to 0 bytes: {_REMEDY}"
    return f"shard {path} is no tar file: shards are uncompressed tars, as img2dataset writes them"


def _check_end(path: str, file: BinaryIO, offset: int) -> None:
    """`tarfile` stops silently at whatever is no header; only the end mark may end a shard."""
    file.seek(offset)
    rest = file.read(BLOCK)
    if len(rest) < BLOCK:
        raise UsageError(f"shard {path} is truncated (no end mark at byte {offset}): {_REMEDY}")
    while rest:
        if rest.strip(b"\0"):
            raise UsageError(
                f"shard {path} is damaged after byte {offset}, or is several tars in one: {_REMEDY}"
            )
        rest = file.read(1 << 20)
