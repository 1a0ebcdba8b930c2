"""What lies where in a ZIP file that is read in place."""

import stat
import struct
import zipfile
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from nlip_jax.data.failures import ReadError
from nlip_jax.data.formats.reading import checked, open_stream, read_part
from nlip_jax.data.storage import File

# What stands before each member: signature, version, flags, method, time, date, CRC, two sizes
# (often 0: the directory at the end of the file has them), lengths of name and extra field.
_HEADER = struct.Struct("<4s5HIIIHH")
_SIGNATURE = b"PK\x03\x04"
_UTF8, _ENCRYPTED = 1 << 11, 1  # flags
_MAX_SIZE = 1 << 32  # bytes


def _stored(data: bytes, size: int) -> bytes:
    return data[:size]


def _inflated(data: bytes, size: int) -> bytes:
    # At most what the directory promised, whatever else is packed in there.
    return zlib.decompressobj(-zlib.MAX_WBITS).decompress(data, size)


_METHODS: dict[int, Callable[[bytes, int], bytes]] = {
    zipfile.ZIP_STORED: _stored,
    zipfile.ZIP_DEFLATED: _inflated,
}


@dataclass(frozen=True)
class ZipMember:
    """A file in a ZIP file.

    Attributes:
      name: its path there; nothing is ever written to it.
      offset: bytes to its header.
      packed: bytes that it takes.
      size: bytes that it has.
      problem: name in `COUNTS` of why it cannot be read; empty if it can.
      complaint: the same in words.
    """

    name: str
    offset: int
    packed: int
    size: int
    problem: str = ""
    complaint: str = ""


def zip_members(file: File) -> Iterator[ZipMember]:
    """The files that the directory at the end lists, in its order.

    Raises:
      ValueError: no whole ZIP file.
    """
    try:
        with zipfile.ZipFile(open_stream(file)) as archive:
            infos = archive.infolist()
    except (zipfile.BadZipFile, NotImplementedError, UnicodeDecodeError) as error:
        raise ValueError(str(error)) from error
    for info in infos:
        if not info.is_dir():
            problem, complaint = _problem(info)
            place = (info.header_offset, info.compress_size, info.file_size)
            yield ZipMember(info.orig_filename, *place, problem, complaint)


def zip_name(file: File, offset: int) -> str:
    """The name of the member whose header is at an offset.

    Raises:
      ReadError: there is no header.
    """
    return _read_header(file, offset).name


def read_member(file: File, offset: int, packed: int, size: int) -> bytes:
    """The content of a member, by its `offset`, `packed` and `size`.

    Raises:
      ReadError: it is not there, or cannot be decompressed.
    """
    header = _read_header(file, offset)
    data = read_part(file, header.stop, packed)
    try:
        content = _METHODS[header.method](data, size)
    except (KeyError, zlib.error) as error:
        raise ReadError("truncated_image", f"it cannot be decompressed ({error})") from error
    return checked(content, size)


def _problem(info: zipfile.ZipInfo) -> tuple[str, str]:
    mode = info.external_attr >> 16  # of the POSIX file that it was
    if mode and stat.S_IFMT(mode) not in (0, stat.S_IFREG):
        return "not_a_file", "no plain file"
    if info.flag_bits & _ENCRYPTED:
        return "unusable_image", "encrypted"
    if info.compress_type not in _METHODS:
        return "unusable_image", f"compressed by method {info.compress_type}, not by deflate"
    if not 0 < info.file_size < _MAX_SIZE or info.compress_size >= _MAX_SIZE:
        return "unusable_image", f"{info.file_size} bytes"
    return "", ""


@dataclass(frozen=True)
class _Header:
    name: str
    method: int
    stop: int  # where the content begins


def _read_header(file: File, offset: int) -> _Header:
    fields = _HEADER.unpack(read_part(file, offset, _HEADER.size))
    signature, _, flags, method, *_, name_length, extra_length = fields
    if signature != _SIGNATURE:
        raise ReadError("missing_bytes", f"no member begins at byte {offset}")
    start = offset + _HEADER.size
    name = read_part(file, start, name_length)
    return _Header(
        name=name.decode("utf-8" if flags & _UTF8 else "cp437", "replace"),
        method=method,
        stop=start + name_length + extra_length,
    )
