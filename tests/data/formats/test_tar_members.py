"""Where the members of a tar lie, compared with the standard library."""

import gzip
import io
import os
import tarfile
from pathlib import Path

import pytest
from tars import write_tar

from nlip_jax.data.formats.tar_members import BLOCK, Window, name_at, split_name, tar_members
from nlip_jax.data.storage import Storage
from nlip_jax.errors import UsageError

FORMATS = [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT]
NAMES = [
    "000000000.jpg",
    "folder/ü 😀.txt",
    "/absolute.jpg",
    "../outside.jpg",
    "a/" * 40 + "b" * 90 + ".json",  # fits into a ustar prefix
    "شمس.txt",
]
LONG = ["x/" * 200 + "long.jpg", "y" * 150 + ".txt"]


def read(path):
    file = Storage().open(str(path))
    try:
        return list(tar_members(file, Window(file)))
    finally:
        file.close()


def write_bytes(path, data):
    path.write_bytes(data)
    return str(path)


def tar_bytes(folder, members):
    return Path(write_tar(folder / "a.tar", members)).read_bytes()


def special(name, kind, **fields):
    member = tarfile.TarInfo(name)
    member.type = kind
    for field, value in fields.items():
        setattr(member, field, value)
    return member


@pytest.mark.parametrize("fmt", FORMATS)
def test_agrees_with_the_standard_library(tmp_path, fmt):
    names = NAMES if fmt == tarfile.USTAR_FORMAT else [*NAMES, *LONG]
    path = write_tar(
        tmp_path / "one.tar", [(name, os.urandom(300 * i)) for i, name in enumerate(names)], fmt
    )
    with tarfile.open(path) as tar:
        expected = [(member.name, member.offset_data, member.size) for member in tar]
    members = read(path)
    assert [member[:3] for member in members] == expected
    assert not any(member.problem for member in members)
    file = Storage().open(path)
    assert [name_at(file, offset // BLOCK) for _, offset, _ in expected] == names


def test_pax_headers_tell_sizes_and_names(tmp_path):
    member = tarfile.TarInfo("short.jpg")
    member.size, member.mtime = 700, 1.25
    member.pax_headers = {"comment": "x" * 2000, "size": "700", "path": "päth.jpg"}
    header = bytearray(member.tobuf(tarfile.PAX_FORMAT))
    tar = bytes(header) + bytes(1024) + bytes(1024)
    (found,) = read(write_bytes(tmp_path / "pax.tar", tar))
    assert found[:3] == ("päth.jpg", len(header), 700)


def test_pax_headers_for_all(tmp_path):
    path = tmp_path / "global.tar"
    with tarfile.open(path, "w", format=tarfile.PAX_FORMAT, pax_headers={"comment": "ü"}) as tar:
        tar.addfile(tarfile.TarInfo("a.jpg"))
    assert [member.name for member in read(path)] == ["a.jpg"]


def test_large_sizes_and_numbers_to_the_base_of_256(tmp_path):
    member = tarfile.TarInfo("big.jpg")
    member.size = 9 << 30
    for fmt in (tarfile.GNU_FORMAT, tarfile.PAX_FORMAT):
        header = member.tobuf(fmt)
        path = tmp_path / "big.tar"
        with open(path, "wb") as file:  # a sparse file: it takes no place on disk
            file.write(header)
            file.truncate(len(header) + member.size + 1024)
        (found,) = read(path)
        assert found[:3] == ("big.jpg", len(header), 9 << 30)


def test_odd_bytes_in_names(tmp_path):
    path = write_tar(tmp_path / "odd.tar", [("\udcff\udc80.jpg", b"x"), ("a\nb\x01.jpg", b"y")])
    members = read(path)
    assert [member.name for member in members] == ["\udcff\udc80.jpg", "a\nb\x01.jpg"]
    tar = tarfile.TarInfo("a.jpg").tobuf()
    cut = bytearray(tar)
    cut[:10] = b"a.jpg\0b.x\0"  # what stands behind the NUL is no part of the name
    cut[148:156] = b"%06o\0 " % (sum(cut[:148]) + sum(cut[156:]) + 8 * 32)
    assert read(write_bytes(tmp_path / "nul.tar", bytes(cut) + bytes(1024)))[0].name == "a.jpg"


def test_checksums_of_signed_bytes(tmp_path):
    header = bytearray(tarfile.TarInfo("é.jpg").tobuf(tarfile.GNU_FORMAT))
    total = sum(byte - 256 * (byte > 127) for byte in header[:148] + header[156:]) + 8 * 32
    header[148:156] = b"%06o\0 " % total
    assert read(write_bytes(tmp_path / "signed.tar", bytes(header) + bytes(1024)))[0].name


def test_what_is_no_file(tmp_path):
    path = tmp_path / "special.tar"
    with tarfile.open(path, "w") as tar:
        tar.addfile(special("folder", tarfile.DIRTYPE))
        tar.addfile(special("hard.jpg", tarfile.LNKTYPE, linkname="/etc/passwd"))
        tar.addfile(special("soft.jpg", tarfile.SYMTYPE, linkname="../../secret.jpg"))
        tar.addfile(special("device.jpg", tarfile.CHRTYPE))
        tar.addfile(special("pipe.jpg", tarfile.FIFOTYPE))
        sparse = special("sparse.jpg", tarfile.GNUTYPE_SPARSE, size=5)
        tar.fileobj.write(sparse.tobuf(tarfile.GNU_FORMAT) + bytes(512))
        tar.addfile(special("last.jpg", tarfile.REGTYPE, size=4), io.BytesIO(b"last"))
    members = {member.name: member for member in read(path)}
    kinds = {name: member.problem for name, member in members.items()}
    assert kinds.pop("last.jpg") == "" and len(kinds) == 5
    assert set(kinds.values()) == {"not_a_file"}
    assert path.read_bytes()[members["last.jpg"].offset :].startswith(b"last")


def test_a_tar_that_is_cut(tmp_path):
    names = [f"{i}.jpg" for i in range(4)]
    whole = tar_bytes(tmp_path, {name: bytes(700) for name in names})
    step = BLOCK * 3  # of a member
    for length in range(BLOCK, 4 * step, 100):
        members = read(write_bytes(tmp_path / "cut.tar", whole[:length]))
        num_whole = (length + step - BLOCK - 700) // step
        problems = [member.problem for member in members]
        assert problems == [""] * num_whole + ["truncated"], length
        assert [member.name for member in members[:num_whole]] == names[:num_whole]
    for length in range(4 * step + BLOCK, len(whole), 100):
        assert len(read(write_bytes(tmp_path / "cut.tar", whole[:length]))) == 4


def test_damage_ends_a_tar_and_tars_in_a_row_are_one(tmp_path):
    whole = tar_bytes(tmp_path, {"a.jpg": b"a", "b.jpg": b"b"})
    members = read(write_bytes(tmp_path / "two.tar", whole + whole))
    assert [member.name for member in members] == ["a.jpg", "b.jpg"] * 2
    for place in (3 * BLOCK - 100, 2 * BLOCK + 3, 2 * BLOCK + 130):  # header of the second
        damaged = bytearray(whole)
        damaged[place] ^= 1
        first, *rest = read(write_bytes(tmp_path / "damaged.tar", bytes(damaged)))
        assert first.name == "a.jpg"
        assert [m.problem for m in rest] == ["truncated"] and str(2 * BLOCK) in rest[0].complaint
    members = read(write_bytes(tmp_path / "rest.tar", whole + b"garbage" * 100))
    assert [member.problem for member in members] == ["", "", "truncated"]


def test_headers_that_lie(tmp_path):
    member = tarfile.TarInfo("a.jpg")
    good = member.tobuf()
    for kind, size in ((b"L", 1 << 40), (b"x", 1 << 21), (b"0", 1 << 50), (b"L", 300)):
        lie = special("lie", kind, size=size).tobuf(tarfile.GNU_FORMAT)
        members = read(write_bytes(tmp_path / "lie.tar", good + lie + bytes(100)))
        assert [m.problem for m in members] == ["", "truncated"], kind
    lies = (b"9999999999 path=x\n", b"0 path=x\n", b"12 size=-50\n", b"1" * 100, b"12 size=1_0\n")
    for records in lies:
        pax = special("pax", b"x", size=len(records)).tobuf(tarfile.USTAR_FORMAT)
        data = pax + records.ljust(BLOCK, b"\0") + good + bytes(1024)
        assert len(read(write_bytes(tmp_path / "lie.tar", data))) == 1
    forever = special("x", b"x", size=0).tobuf(tarfile.USTAR_FORMAT) * 5000
    assert read(write_bytes(tmp_path / "lie.tar", forever + good + bytes(1024)))[0].name == "a.jpg"


def test_refuses_what_is_no_tar(tmp_path):
    whole = tar_bytes(tmp_path, {"a.jpg": b"a"})
    refusals = {
        gzip.compress(whole): r"is compressed \(gzip\): decompress it, tars are read in place",
        b"\x28\xb5\x2f\xfd" + bytes(600): r"is compressed \(zstd\): decompress it",
        b"": "has 0 bytes",
        b"hello": "is no tar file",
        b"x" * 2000: "is no tar file",
        whole[5:]: "is no tar file",
    }
    for data, message in refusals.items():
        with pytest.raises(UsageError, match=f"^shard .*bad.tar {message}[^\n]*$"):
            read(write_bytes(tmp_path / "bad.tar", data))
    with open(tmp_path / "huge.tar", "wb") as file:
        file.write(whole)
        file.truncate(BLOCK << 32)
    with pytest.raises(UsageError, match="the limit is 2199023255552: split it"):
        read(tmp_path / "huge.tar")
    assert read(write_bytes(tmp_path / "empty.tar", bytes(10240))) == []


def test_names_of_members_without_one(tmp_path):
    path = write_tar(tmp_path / "a.tar", {"a.jpg": b"a", "b.jpg": b"b"})
    file = Storage().open(path)
    assert [name_at(file, block) for block in range(6)] == ["", "a.jpg", "", "b.jpg", "", ""]


def test_split_name():
    assert split_name("a.b/000.JPG") == ("a.b/000", "jpg")
    assert split_name("../x.tar.gz") == ("../x", "tar.gz")
    assert split_name("._x.jpg") == ("", "_x.jpg")
    assert split_name("none") == ("none", "")


def test_window_reads_ahead_and_jumps():
    class File:
        def __init__(self):
            self.data = os.urandom(1 << 21)
            self.asked = []

        def read(self, offset, length):
            self.asked.append((offset, length))
            return self.data[offset : offset + length]

    file = File()
    window = Window(file)
    for offset in range(0, 200_000, 512):
        assert window.read(offset, 512) == file.data[offset : offset + 512]
    assert len(file.asked) == 1
    for offset in range(400_000, 1 << 21, 400_000):  # large images lie between
        assert window.read(offset, 512) == file.data[offset : offset + 512]
    assert sum(length for _, length in file.asked[1:]) < 5 * 20_000
    assert window.read((1 << 21) - 100, 512) == file.data[-100:]
    assert window.read(0, 1 << 20) == file.data[: 1 << 20]
