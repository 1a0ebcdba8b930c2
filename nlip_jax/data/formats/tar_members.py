"""What lies where in a tar file that is read in place.

Headers are unpacked here and not by `tarfile`, which needs ten times as long for each.
https://pubs.opengroup.org/onlinepubs/9699919799/utilities/pax.html describes ustar and pax headers.
"""

import re
from collections.abc import Iterator
from typing import NamedTuple

from nlip_jax.data.storage import File
from nlip_jax.errors import UsageError

BLOCK = 512  # every member starts on a block, so places fit into 32 bits
MAX_BYTES = BLOCK << 32

_ZEROS = bytes(BLOCK)
_COMPRESSED = {b"\x1f\x8b": "gzip", b"BZh": "bzip2", b"\xfd7zXZ": "xz", b"\x28\xb5\x2f\xfd": "zstd"}
_PLAIN, _FOLDER = b"07\0", b"5"
_WITHOUT_DATA = b"123456"  # links, devices, folders, pipes: whatever size they claim
_PAX, _PAX_GLOBAL, _GNU_NAME, _GNU_LINK, _SPARSE = b"xX", b"g", b"L", b"K", b"S"
_EXTENDING = _PAX + _PAX_GLOBAL + _GNU_NAME + _GNU_LINK  # tell about the member that follows
_MAX_EXTENSION = 1 << 20  # bytes of names and other properties
_PAX_LENGTH = re.compile(rb"(\d{1,20}) ")
_BLOCKS_BEFORE = 64  # that extensions of one member take in practice

# Members nearer to one another than the gap are read through, others are jumped at.
_GAP, _NEAR, _FAR = 1 << 17, 1 << 18, 1 << 14  # bytes


class Member(NamedTuple):
    """A member of a tar.

    Attributes:
      name: its path; bytes that are no UTF-8 are escaped as surrogates.
      offset: of its content, in bytes.
      size: of its content, in bytes.
      problem: empty for a plain file, else the count it falls under.
      complaint: what the problem is.
    """

    name: str
    offset: int
    size: int
    problem: str = ""
    complaint: str = ""


class _Damaged(ValueError):
    """A block that is no header."""


class Window:
    """Reads a file from front to back, ahead of what is asked for.

    Args:
      file: an open file.
    """

    def __init__(self, file: File) -> None:
        self._file, self._start, self._data = file, 0, b""

    def read(self, offset: int, length: int) -> bytes:
        """Bytes from a place on; fewer where the file ends."""
        begin = offset - self._start
        if not 0 <= begin <= begin + length <= len(self._data):
            ahead = _NEAR if 0 <= begin < len(self._data) + _GAP else _FAR
            self._data = self._file.read(offset, max(length, ahead))
            self._start, begin = offset, 0
        return self._data[begin : begin + length]


def tar_members(file: File, window: Window) -> Iterator[Member]:
    """Yields the members of an uncompressed tar, folders left out.

    A tar that is cut short or damaged ends with a member that is "truncated". Tars that were
    appended to one another are read as one.

    Args:
      file: the tar.
      window: on the same file.

    Raises:
      UsageError: no tar, a compressed or an empty one.
      OSError: it cannot be read.
    """
    _check_is_tar(file, window.read(0, BLOCK))
    end, offset, marked = file.status.size, 0, False
    common: dict[bytes, bytes] = {}
    while offset < end:
        header = window.read(offset, BLOCK)
        if not header.strip(b"\0"):
            offset, marked = offset + BLOCK, True
            continue
        try:
            member, offset = _next_member(window, offset, end, common)
        except _Damaged as error:
            yield Member("", offset, 0, "truncated", f"{error} at byte {offset}")
            return
        if member is not None:
            yield member
            if member.problem == "truncated":
                return
        marked = False
    if not marked:
        yield Member("", end, 0, "truncated", f"no end mark at byte {end}")


def split_name(name: str) -> tuple[str, str]:
    """Splits "folder/000.jpg" into the key of the sample, "folder/000", and "jpg"."""
    folder, slash, base = name.rpartition("/")
    stem, _, extension = base.partition(".")
    return folder + slash + stem, extension.lower()


def name_at(file: File, block: int) -> str:
    """The name of the member whose content begins at a block; empty if there is none.

    Raises:
      OSError: the file cannot be read.
    """
    first = max(0, block - _BLOCKS_BEFORE)
    window = Window(file)
    # A long name stands before the header, so the farthest start that leads here knows it.
    for start in range(first, block):
        try:
            member, _ = _next_member(window, start * BLOCK, file.status.size, {})
        except _Damaged:
            continue
        if member is not None and member.offset == block * BLOCK:
            return member.name
    return ""


def _next_member(
    window: Window, offset: int, end: int, common: dict[bytes, bytes]
) -> tuple[Member | None, int]:
    """The member whose header, or whose first extension, is at an offset; and where it ends.

    Args:
      window: on the tar.
      offset: in bytes.
      end: of the file.
      common: pax records for all members, taken from here and put here.

    Returns:
      The member, None for a folder; where the next header is.

    Raises:
      _Damaged: there is no header where one must be, or it tells no size.
    """
    header, offset, long_name, records = _read_header(window, offset, end, common)
    kind, size = header[156:157], _number(header[124:136])
    if kind == _SPARSE:
        more = header[482]
        while more:
            more, offset = window.read(offset, BLOCK).ljust(BLOCK, b"\0")[504], offset + BLOCK
    elif records.get(b"size"):
        size = _decimal(records[b"size"])
    name = long_name or records.get(b"path") or _short_name(header)
    if kind in _WITHOUT_DATA:
        size = 0
    following = offset + -(-size // BLOCK) * BLOCK
    if kind == _FOLDER or (kind == b"\0" and name.endswith(b"/")):
        return None, following
    text = name.decode("utf-8", "surrogateescape")
    if offset + size > end:
        missing = offset + size - end
        return Member(text, offset, size, "truncated", f"{missing} bytes are cut off"), end
    if kind not in _PLAIN or any(key.startswith(b"GNU.sparse") for key in records):
        return Member(text, offset, size, "not_a_file", f"a member of type {kind!r}"), following
    return Member(text, offset, size), following


def _read_header(
    window: Window, offset: int, end: int, common: dict[bytes, bytes]
) -> tuple[bytes, int, bytes, dict[bytes, bytes]]:
    """The header at an offset or behind the extensions there; see `_next_member`.

    Returns:
      The header; where it ends; the name and the pax records that the extensions tell.
    """
    long_name, own = b"", {}
    while True:
        header = window.read(offset, BLOCK)
        _check_sum(header)
        offset += BLOCK
        kind = header[156:157]
        if kind not in _EXTENDING:
            return header, offset, long_name, common | own
        size = _number(header[124:136])
        if size > min(_MAX_EXTENSION, end - offset):
            raise _Damaged(f"a header with {size} bytes of properties")
        content = window.read(offset, size)
        offset += -(-size // BLOCK) * BLOCK
        if kind in _PAX:
            own |= _pax_records(content)
        elif kind == _PAX_GLOBAL:
            common |= _pax_records(content)
        elif kind == _GNU_NAME:
            long_name = content.partition(b"\0")[0]


def _check_is_tar(file: File, head: bytes) -> None:
    size = file.status.size
    if size == 0:
        raise UsageError(f"shard {file.path} has 0 bytes: fetch it again or leave it out")
    if size >= MAX_BYTES:
        raise UsageError(f"shard {file.path} has {size} bytes, the limit is {MAX_BYTES}: split it")
    if head == _ZEROS:
        return
    try:
        _check_sum(head)
    except _Damaged as error:
        for magic, method in _COMPRESSED.items():
            if head.startswith(magic):
                raise UsageError(
                    f"shard {file.path} is compressed ({method}): decompress it, tars are read "
                    "in place"
                ) from error
        raise UsageError(
            f"shard {file.path} is no tar file: shards are uncompressed tars, as img2dataset "
            "writes them"
        ) from error


def _check_sum(header: bytes) -> None:
    if len(header) < BLOCK:
        raise _Damaged("the file ends within a header")
    expected = _number(header[148:156])
    found = sum(header) - sum(header[148:156]) + 8 * ord(" ")
    if found != expected:
        # Old writers added the bytes up as signed numbers.
        above = sum(byte > 127 for byte in header[:148] + header[156:])
        if found - 256 * above != expected:
            raise _Damaged("no tar header")


def _number(field: bytes) -> int:
    """Octal digits, or 256 as base where the first bit is set."""
    if field[0] == 0x80:
        return int.from_bytes(field[1:], "big")
    digits = field.partition(b"\0")[0].strip()
    if digits.translate(None, b"01234567"):
        raise _Damaged("a number that is none")
    return int(digits or b"0", 8)


def _decimal(digits: bytes) -> int:
    if not digits.isdigit() or len(digits) > 20:
        raise _Damaged("a size that is no number")
    return int(digits)


def _short_name(header: bytes) -> bytes:
    name = header[:100].partition(b"\0")[0]
    if header[257:263] == b"ustar\0" and header[345]:
        return header[345:500].partition(b"\0")[0] + b"/" + name
    return name


def _pax_records(content: bytes) -> dict[bytes, bytes]:
    """Records of the form "LENGTH KEY=VALUE\\n", as far as they are whole."""
    records, position = {}, 0
    while match := _PAX_LENGTH.match(content, position):
        stop = position + int(match[1])
        if not match.end() < stop <= len(content):
            break
        key, _, value = content[match.end() : stop - 1].partition(b"=")
        records[key] = value
        position = stop
    return records
