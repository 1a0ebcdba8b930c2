"""Scanning tars and reading them again."""

import contextlib
import io
import json
import os
import pickle
import tarfile
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from tars import encode, pixels, read_tar, sample, write_tar

from nlip_jax.data.failures import ReadError
from nlip_jax.data.formats.base import COUNTS
from nlip_jax.data.formats.tar import TarFormat
from nlip_jax.data.storage import Storage
from nlip_jax.errors import UsageError

STORAGE = Storage()
IMAGE = encode(pixels(0))


def scan(path, *keys):
    return TarFormat(keys or ("json:captions",)).scan(str(path), STORAGE)


def one(tmp_path, members, **options):
    return write_tar(tmp_path / "one.tar", members, **options)


def counts(found):
    assert set(found.counts) <= set(COUNTS)
    return {name: count for name, count in found.counts.items() if count}


def test_rows_and_reading(tmp_path):
    lists = [["a", "b"], ["c"], ["d", " ", "", "e\n", "f"]]
    members = {}
    for i, texts in enumerate(lists):
        members |= sample(f"x/{i:05d}", texts, seed=i)
    path = one(tmp_path, members)
    tar = TarFormat(("json:captions",))
    found = tar.scan(path, STORAGE)
    assert found.captions.tolist() == [2, 1, 3] and found.captions.dtype == np.uint32
    assert found.rows.dtype == tar.row and tar.row.itemsize == 16
    assert found.size == os.path.getsize(path) and found.modified_ns == os.stat(path).st_mtime_ns
    assert counts(found) == {"images": 3, "captions": 6, "other": 3} and not found.complaint
    shard = pickle.loads(pickle.dumps(tar)).open(path, STORAGE)
    for i, row in enumerate(found.rows):
        assert shard.image(row) == read_tar(path)[f"x/{i:05d}.jpg"]
        assert shard.captions(row) == [[stripped for t in lists[i] if (stripped := t.strip())]]
        assert shard.key(row) == f"x/{i:05d}"


def test_keys_in_fallback_order(tmp_path):
    members = {
        **{f"{name}.jpg": IMAGE for name in "abcdef"},
        "a.txt": b"text",
        "a.json": b'{"long": ["x", "y"], "short": "s"}',
        "b.txt": b" ",
        "b.json": b'{"short": "s", "long": null}',
        "c.json": b'{"short": "s"}',
        "d.txt": b"text",
        "d.json": b"[]",
        "e.txt": b"\xff",
        "e.json": b'{"other": 1}',
        "f.txt": b" ",
    }
    tar = TarFormat(("json:long", "txt", "json:short"))
    path = one(tmp_path, members)
    found = tar.scan(path, STORAGE)
    assert tar.row.itemsize == 24 and tar.num_caption_keys == 3
    assert found.captions.tolist() == [2, 1, 1, 1]
    assert counts(found) == {
        "images": 4,
        "captions": 5,
        "unreadable_caption": 1,
        "blank_caption": 1,
    }
    assert "e: txt: 'utf-8' codec" in found.complaint
    shard = tar.open(path, STORAGE)
    assert [shard.captions(row) for row in found.rows] == [
        [["x", "y"], ["text"], ["s"]],
        [[], [], ["s"]],
        [[], [], ["s"]],
        [[], ["text"], []],
    ]
    assert found.rows["txt_length"].tolist() == [4, 0, 0, 4]
    assert found.rows["json_length"].tolist()[3] == 0
    assert tar.identity() == {"caption_keys": ["json:long", "txt", "json:short"]}
    assert TarFormat(("txt", "json:a")).row != TarFormat(("json:a", "txt")).row


@pytest.mark.parametrize("keys", [(), ("txt", "txt"), ("jsonl",), ("json:",), ("json",)])
def test_refuses_keys(keys):
    with pytest.raises(UsageError, match=r"name one or more|must be 'txt' or 'json:FIELD'"):
        TarFormat(keys)


def test_members_in_any_order_with_long_names(tmp_path):
    folder = "a.b/" + "long" * 20
    members = [
        (f"{folder}/ü.txt", b"later image"),
        ("./x.JPG", encode(pixels(1))),
        (f"{folder}/ü.webp", encode(pixels(2), "WEBP")),
        ("./x.txt", b"first image"),
        ("._x.jpg", b"resource fork"),
    ]
    for fmt in (tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT):
        path = one(tmp_path, members, fmt=fmt)
        found = scan(path, "txt")
        shard = TarFormat().open(path, STORAGE)
        assert [shard.captions(row) for row in found.rows] == [[["first image"]], [["later image"]]]
        assert [shard.image(row) for row in found.rows] == [members[1][1], members[2][1]]
        assert [shard.key(row) for row in found.rows] == ["./x", f"{folder}/ü"]
        assert counts(found) == {"images": 2, "captions": 2, "other": 1}


HARMLESS = {
    "nul": ("a\0b\0", "a b"),
    "surrogate": ("\ud83d half", "? half"),
    "emoji": ("\ud83d\ude00 👩\u200d🚀", "😀 👩\u200d🚀"),
    "right_to_left": ("\u202eشمس فوق البحر", "\u202eشمس فوق البحر"),
    "long": ("x y" * 33_333 + "z", "x y" * 33_333 + "z"),
    "quoted": ('"\\u0000" \t', '"\\u0000"'),
}


@pytest.mark.parametrize("name", HARMLESS)
def test_odd_captions_are_made_harmless(tmp_path, name):
    caption, expected = HARMLESS[name]
    members = {"j.jpg": IMAGE, "j.json": json.dumps({"captions": [caption]}).encode()}
    with contextlib.suppress(UnicodeEncodeError):  # only JSON can spell half a pair
        members |= {"t.jpg": IMAGE, "t.txt": caption.encode()}
    path = one(tmp_path, members)
    for keys in (("json:captions",), ("txt", "json:captions")):
        tar = TarFormat(keys)
        found, shard = tar.scan(path, STORAGE), tar.open(path, STORAGE)
        for row in found.rows:
            assert [text for texts in shard.captions(row) for text in texts] == [expected]
            expected.encode()
    assert found.counts["images"] == len(members) // 2


WRONG_CAPTIONS = {
    "no_member": (None, "without_caption"),
    "no_field": (b'{"caption": "x"}', "without_caption"),
    "null": (b'{"captions": null}', "without_caption"),
    "broken": (b"{", "unreadable_caption"),
    "no_object": (b'["captions"]', "unreadable_caption"),
    "text": (b'"captions"', "unreadable_caption"),
    "deep": (b"[" * 200_000, "unreadable_caption"),
    "large_number": (b'{"captions": ' + b"1" * 5000 + b"}", "unreadable_caption"),
    "numbers": (b'{"captions": [1]}', "unreadable_caption"),
    "mixed": (b'{"captions": ["x", {"y": 1}]}', "unreadable_caption"),
    "latin1": ('{"captions": "é"}'.encode("latin-1"), "unreadable_caption"),
    "utf16": ('{"captions": "x"}'.encode("utf-16"), "unreadable_caption"),
    "empty_member": (b"", "unreadable_caption"),
    "too_long": (b'{"captions": "' + b"x" * (1 << 24) + b'"}', "unreadable_caption"),
    "blank": (b'{"captions": ["", " \\u0000 "]}', "blank_caption"),
    "no_texts": (b'{"captions": []}', "blank_caption"),
    "empty": (b'{"captions": ""}', "blank_caption"),
}


@pytest.mark.parametrize("name", WRONG_CAPTIONS)
def test_every_unusable_caption_falls_under_its_kind(tmp_path, name):
    data, kind = WRONG_CAPTIONS[name]
    members = {**sample("good", ["one"]), f"{name}.jpg": IMAGE}
    members |= {} if data is None else {f"{name}.json": data}
    found = scan(one(tmp_path, members))
    assert counts(found) == {"images": 1, "captions": 1, "other": 1, kind: 1}
    assert found.complaint.startswith(f"{name}: ")


def test_torture(tmp_path):
    """Everything that can be wrong with members, between samples that are not to be lost."""
    inner = tmp_path / "inner.tar"
    write_tar(inner, sample("nested", ["must not be found"]))
    secret = tmp_path / "secret.jpg"
    secret.write_bytes(IMAGE)
    path = tmp_path / "folder" / "torture.tar"
    path.parent.mkdir()
    good, expected = 0, Counter()

    with tarfile.open(path, "w", format=tarfile.PAX_FORMAT) as tar:

        def add(name, data=b"", kind=tarfile.REGTYPE, linkname="", **count):
            nonlocal good
            member = tarfile.TarInfo(name)
            member.type, member.linkname = kind, linkname
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
            expected.update(count)
            for file, content in sample(f"good{good}", [f"caption {good}"]).items():
                member = tarfile.TarInfo(file)
                member.size = len(content)
                tar.addfile(member, io.BytesIO(content))
            good += 1

        add("hard.jpg", kind=tarfile.LNKTYPE, linkname=str(secret), not_a_file=1)
        add("soft.jpg", kind=tarfile.SYMTYPE, linkname="../secret.jpg", not_a_file=1)
        add("device.json", kind=tarfile.BLKTYPE, not_a_file=1)
        add("folder", kind=tarfile.DIRTYPE)
        add("nested.tar", inner.read_bytes(), other=1)
        add("nested.jpg", inner.read_bytes(), without_caption=1)
        add("../escape.jpg", IMAGE, without_caption=1)
        add("../escape.txt", b"written outside?")
        add(f"{tmp_path}/absolute.json", b'{"captions": "x"}', without_image=1)
        add("zero.jpg", unusable_image=1)
        add("good0.png", encode(pixels(1), "PNG"), duplicate=1)
        add("good0.json", b'{"captions": "second"}', duplicate=1)
        add("n" * 300 + ".jpg", IMAGE, without_caption=1)
        add("nul\0name.jpg", IMAGE, other=1)  # its name ends at the NUL
        add("\udcff.jpg", IMAGE, without_caption=1)
        add("شمس.jpg", IMAGE, without_caption=1)
        add("html.jpg", b"<html>", without_caption=1)
        add("video.mp4", b"x", other=1)
    whole = path.read_bytes()
    path.write_bytes(whole[: whole.rindex(b"\xff\xd9")])  # in the last image
    expected.update(truncated=1, images=good - 1, captions=good - 1, other=good - 1)
    expected["other"] += 1  # the text of ../escape

    before = sorted(os.listdir(tmp_path))
    found = scan(path)
    assert counts(found) == dict(expected)
    shard = TarFormat(("json:captions",)).open(str(path), STORAGE)
    assert [shard.captions(row) for row in found.rows] == [
        [[f"caption {i}"]] for i in range(good - 1)
    ]
    assert all(shard.image(row) == sample("x", ["x"])["x.jpg"] for row in found.rows)
    assert [shard.key(row) for row in found.rows] == [f"good{i}" for i in range(good - 1)]
    assert sorted(os.listdir(tmp_path)) == before


def test_truncated_members_of_each_kind(tmp_path):
    members = [("a.jpg", IMAGE), ("a.txt", b"one"), ("b.jpg", IMAGE), ("b.txt", b"x" * 2000)]
    path = one(tmp_path, members)
    with tarfile.open(path) as tar:
        *_, third, fourth = tar.getmembers()
    cut = {
        third.offset_data + 10: {"truncated": 1},
        fourth.offset + 10: {"truncated": 1, "without_caption": 1},
        fourth.offset_data + 10: {"truncated": 1, "without_caption": 1},
    }
    for length, expected in sorted(cut.items(), reverse=True):
        os.truncate(path, length)
        found = scan(path, "txt")
        assert counts(found) == {"images": 1, "captions": 1, **expected}
        assert "cut off" in found.complaint or "ends within a header" in found.complaint


def test_digest_sees_keys_and_captions_of_all_caption_keys(tmp_path):
    def digest(name, json_text, text, keys):
        members = {f"{name}.jpg": IMAGE, f"{name}.txt": text, f"{name}.json": json_text}
        return scan(one(tmp_path, members), *keys).digest

    both = ("json:captions", "txt")
    base = digest("a", b'{"captions": ["x", "yz"]}', b"t", both)
    assert base == digest("a", b'{"captions":["x" ,"yz"]}', b" t", both)
    others = [
        digest("b", b'{"captions": ["x", "yz"]}', b"t", both),
        digest("a", b'{"captions": ["xy", "z"]}', b"t", both),
        digest("a", b'{"captions": ["x", "yz"]}', b"u", both),
        digest("a", b'{"captions": ["x"]}', b"yz", both),
    ]
    assert len({base, *others}) == 5


def test_a_tar_without_pairs_says_what_it_has(tmp_path):
    def complaint(members, *keys):
        found = scan(one(tmp_path, members), *keys)
        assert len(found.rows) == 0
        return found.complaint

    assert complaint({}) == "it has no members"
    assert complaint({"0.txt": b"x"}, "txt") == "its members end in .txt"
    assert complaint({"0.png": b""}).startswith("0.png: 0 bytes; its members end in .png")
    text = b'{"caption": "x", "n": 1, "captions": ["y"], "none": []}'
    found = complaint({"a.txt": b"x", "0.jpg": IMAGE, "0.json": text}, "txt")
    assert found.endswith("end in .jpg .json; json fields with text: caption, captions")
    assert "json fields with text: none" in complaint({"0.jpg": IMAGE, "0.json": b"[]"})


def test_a_shard_that_changed_while_it_is_open(tmp_path):
    path = one(tmp_path, sample("a", ["one", "two"]))
    tar = TarFormat(("json:captions",))
    found, shard = tar.scan(path, STORAGE), tar.open(path, STORAGE)
    row = found.rows[0]
    data = bytearray(Path(path).read_bytes())

    def overwrite(text):
        start = int(row["json_block"]) * 512
        data[start : start + len(text)] = text
        with open(path, "r+b") as file:
            file.write(data)

    overwrite(b"\xff")
    with pytest.raises(ReadError, match="json:captions: 'utf-8' codec") as error:
        shard.captions(row)
    assert error.value.kind == "unreadable_caption"
    os.truncate(path, int(row["image_block"]) * 512 + 5)
    for read in (shard.image, shard.captions):
        with pytest.raises(ReadError, match="bytes are missing") as error:
            read(row)
        assert error.value.kind == "missing_bytes"
    assert shard.key(row) == "a"
    os.truncate(path, 0)
    assert shard.key(row) == "byte 512"


def test_opening_what_is_not_there(tmp_path):
    for action in (TarFormat().scan, TarFormat().open):
        with pytest.raises(FileNotFoundError):
            action(str(tmp_path / "none.tar"), STORAGE)


def test_scanning_leaves_no_file_open(tmp_path):
    path = one(tmp_path, sample("a", ["x"]))
    before = len(os.listdir("/dev/fd"))
    scan(path)
    assert len(os.listdir("/dev/fd")) == before
