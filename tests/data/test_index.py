"""Indexing tar shards: what is found, what is left out, and what is refused."""

import gzip
import json
import os
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

import numpy as np
import pytest
from tars import encode, pixels, read_tar, sample, write_tar

from nlip_jax.data.captions import parse_captions
from nlip_jax.data.index import Index, build_index
from nlip_jax.data.shards import expand_shards
from nlip_jax.data.tar_members import BLOCK
from nlip_jax.errors import UsageError

KEY = "json:captions"


@pytest.fixture
def shards(tmp_path):
    """Two shards with 3 + 2 images and 2 + 1 + 3, 1 + 2 captions."""
    folder = tmp_path / "shards"
    folder.mkdir()
    lists = [[["a", "b"], ["c"], ["d", "e", "f"]], [["g"], ["h", "i"]]]
    paths = []
    for number, captions in enumerate(lists):
        members = {}
        for i, texts in enumerate(captions):
            members |= sample(f"{number:05d}{i:04d}", texts, seed=10 * number + i)
        paths.append(write_tar(folder / f"{number:05d}.tar", members))
    return paths


def refused(*words):
    """A UsageError of one line that has all these words."""
    return pytest.raises(UsageError, match="".join(f"(?=.*{word})" for word in words) + r"[^\n]*$")


def one(tmp_path, members, **options):
    return write_tar(tmp_path / "one.tar", members, **options)


def test_rows_and_counts(shards, tmp_path):
    index = build_index(shards, KEY, tmp_path / "index")
    assert index.counts["images"] == 5 and index.counts["captions"] == 9
    assert index.caption_starts.tolist() == [0, 2, 3, 6, 7, 9]
    assert index.rows["shard"].tolist() == [0, 0, 0, 1, 1]
    assert [shard.path for shard in index.shards] == shards
    names = [name for path in shards for name in read_tar(path) if name.endswith(".jpg")]
    for row, name in zip(index.rows, names, strict=True):
        path = shards[row["shard"]]
        with open(path, "rb") as file:
            file.seek(int(row["image_block"]) * BLOCK)
            assert file.read(row["image_length"]) == read_tar(path)[name]


def test_is_small_and_mapped(tmp_path):
    samples = [sample(f"{i:09d}", ["x"], seed=0) for i in range(200)]
    path = one(tmp_path, {name: data for members in samples for name, data in members.items()})
    index = build_index([path], "txt", tmp_path / "index")
    size = sum(len(array) * array.itemsize for array in (index.rows, index.caption_starts))
    assert size <= 32 * 200
    assert isinstance(index.rows.base, np.memmap)
    assert isinstance(index.caption_starts.base, np.memmap)


def test_shard_order_and_processes(shards, tmp_path):
    there = build_index(shards, KEY, tmp_path / "there")
    back = build_index(shards[::-1], KEY, tmp_path / "back", workers=2)
    assert back.rows["image_block"].tolist() == [*there.rows["image_block"][[3, 4, 0, 1, 2]]]
    assert there.fingerprint != back.fingerprint


def test_copies_have_the_same_fingerprint(shards, tmp_path):
    index = build_index(shards, KEY, tmp_path / "index")
    (tmp_path / "copy").mkdir()
    copies = [shutil.copyfile(s, tmp_path / "copy" / os.path.basename(s)) for s in shards]
    os.utime(copies[0], ns=(1, 1))
    assert build_index(copies, KEY, tmp_path / "second").fingerprint == index.fingerprint
    assert build_index(copies, "txt", tmp_path / "third").fingerprint != index.fingerprint


def test_fingerprint_sees_captions_of_the_same_length(tmp_path):
    prints = set()
    for text in ("a cat", "a dog"):
        path = one(tmp_path, sample("0", [text]))
        prints.add(build_index([path], "txt", tmp_path / "index").fingerprint)
    assert len(prints) == 2


def test_what_is_left_out_is_counted(tmp_path):
    image = encode(pixels(0))
    members = [
        *sample("good", ["one", " ", "", " two\n"]).items(),
        ("no_json.jpg", image),
        ("no_field.jpg", image),
        ("no_field.json", b'{"caption": "x"}'),
        ("null.jpg", image),
        ("null.json", b'{"captions": null}'),
        ("bad_json.jpg", image),
        ("bad_json.json", b"{"),
        ("no_object.jpg", image),
        ("no_object.json", b"[1]"),
        ("numbers.jpg", image),
        ("numbers.json", b'{"captions": [1]}'),
        ("latin1.jpg", image),
        ("latin1.json", '{"captions": "é"}'.encode("latin-1")),
        ("blank.jpg", image),
        ("blank.json", b'{"captions": ["", "  "]}'),
        ("empty.jpg", b""),
        ("empty.json", b'{"captions": "x"}'),
        ("no_image.json", b'{"captions": "x"}'),
        ("good.png", encode(pixels(1), "PNG")),
        ("good.json", b'{"captions": "second"}'),
        ("other.mp4", b"x"),
    ]
    index = build_index([one(tmp_path, members)], KEY, tmp_path / "index")
    assert index.counts == {
        "images": 1,
        "captions": 2,
        "without_caption": 3,
        "unreadable_caption": 4,
        "blank_caption": 1,
        "unusable_image": 1,
        "without_image": 2,
        "duplicate": 2,
    }


@pytest.mark.parametrize("fmt", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_members_in_any_order_and_with_long_names(tmp_path, fmt):
    folder = "a.b/" + "long" * 20
    members = [
        (f"{folder}/ü.txt", b"later image"),
        ("./x.JPG", encode(pixels(1))),
        (f"{folder}/ü.webp", encode(pixels(2), "WEBP")),
        ("./x.txt", b"first image"),
        ("._x.jpg", b"resource fork"),
    ]
    path = one(tmp_path, members, fmt=fmt)
    index = build_index([path], "txt", tmp_path / "index")
    assert index.counts["images"] == 2
    assert index.rows["image_length"].tolist() == [len(members[1][1]), len(members[2][1])]
    assert index.rows["text_length"].tolist() == [11, 11]


def test_parse_captions():
    assert parse_captions(b"\xef\xbb\xbf a\nb \n", None) == ["a\nb"]
    assert parse_captions(b'{"c": "x"}', "c") == ["x"]
    assert parse_captions(b'{"c": ["\\ud83d half", "\\ud83d\\ude00"]}', "c") == ["? half", "😀"]
    with pytest.raises(ValueError, match="deep"):
        parse_captions(b"[" * 200_000, "c")


def test_expand_shards(tmp_path, caplog):
    for name in ("00000.tar", "00001.tar", "00003.tar", "a.txt", "x[1].tar"):
        (tmp_path / name).write_bytes(b"")
    (tmp_path / "folder.tar").mkdir()

    def names(patterns):
        return [os.path.basename(path) for path in expand_shards(patterns)]

    assert names(f"{tmp_path}/0*.tar") == ["00000.tar", "00001.tar", "00003.tar"]
    assert names(f"{tmp_path}/{{00000..00001}}.tar") == ["00000.tar", "00001.tar"]
    assert not caplog.records
    assert names(f"{tmp_path}/000{{0..0}}{{1..3}}.tar") == ["00001.tar", "00003.tar"]
    assert "1 of 3 shards" in caplog.text and "00002.tar" in caplog.text
    assert names(f"{tmp_path}/x[1].tar") == ["x[1].tar"]
    assert names([f"{tmp_path}/00003.tar", f"{tmp_path}/*0[03].tar"]) == ["00000.tar", "00003.tar"]
    with refused("no shard matches", "none", "check"):
        expand_shards([f"{tmp_path}/*.tar", f"{tmp_path}/none*"])
    with refused("no shard matches", r"/\*\.tar"):
        expand_shards(str(tmp_path))


def test_refuses_what_is_no_whole_tar(shards, tmp_path):
    whole = Path(shards[0]).read_bytes()
    with tarfile.open(shards[0]) as tar:
        second = tar.getmembers()[1].offset
    path = tmp_path / "bad.tar"

    def build(data):
        path.write_bytes(data)
        build_index([shards[1], str(path)], KEY, tmp_path / "index")

    for data in (b"hello", b"x" * 2000, whole[5:]):
        with refused("bad.tar", "no tar"):
            build(data)
    with refused("bad.tar", "compressed", "gzip", "decompress"):
        build(gzip.compress(whole))
    # Inside a member, inside a header, and just between two members.
    for length in (0, second - 600, second + 100, second):
        with refused("bad.tar", "truncated"):
            build(whole[:length])
    with refused("bad.tar", "several tars"):
        build(whole + whole)
    damaged = bytearray(whole)
    damaged[second + 3] ^= 1
    with refused("bad.tar", "damaged", str(second)):
        build(bytes(damaged))
    with refused("gone.tar", "cannot be read"):
        build_index([str(tmp_path / "gone.tar")], KEY, tmp_path / "index")
    with refused("more shards"):
        build_index([str(tmp_path / "gone.tar")] * 3, KEY, tmp_path / "index")
    assert sorted(os.listdir(tmp_path)) == ["bad.tar", "shards"]


def test_refuses_tars_without_pairs(tmp_path):
    def build(members, key=KEY):
        build_index([one(tmp_path, members)], key, tmp_path / "index")

    with refused("there are no shards"):
        build_index([], KEY, tmp_path / "index")
    with refused("caption_key='jsonl'", "txt", "json:FIELD"):
        build(sample("0", ["x"]), key="jsonl")
    with refused("no image", r"\.webp", r"one\.tar", r"\.txt"):
        build({"0.txt": b"x"})
    with refused("no image", "it has no members"):
        build({})
    with refused("no image", "1 are empty"):
        build({"0.png": b""})
    image = {"0.jpg": encode(pixels(0))}
    with refused("no caption", "'txt'", r"end in \.jpg \.json", "with text: caption, captions"):
        build({"a.txt": b"x", **image, "0.json": b'{"caption":"x","n":1,"captions":["y"]}'}, "txt")
    with refused("no caption", "'json:text'", "with text: none"):
        build({**image, "0.json": b"{}"}, "json:text")
    with refused("no caption could be read", "1 unreadable_caption", r"one\.tar: 0: .*captions"):
        build({**image, "0.json": b'{"captions": 3}'})
    with refused("no caption could be read", "1 blank_caption", "blank"):
        build({**image, "0.txt": b" \n"}, "txt")


def test_replaces_an_index_and_nothing_else(shards, tmp_path):
    build_index(shards, KEY, tmp_path / "deep" / "index")
    (tmp_path / "empty").mkdir()
    build_index(shards, KEY, tmp_path / "empty")
    opened = Index.open(tmp_path / "empty")
    assert len(build_index(shards[:1], KEY, tmp_path / "empty").rows) == 3
    assert len(opened.rows) == 5 and opened.rows["shard"][-1] == 1  # still readable
    assert sorted(os.listdir(tmp_path)) == ["deep", "empty", "shards"]
    with refused("holds other things", "shards"):
        build_index(shards, KEY, tmp_path / "shards")
    (tmp_path / "file").write_text("x")
    with refused("holds other things", "file"):
        build_index(shards, KEY, tmp_path / "file")
    with refused("cannot be written"):
        build_index(shards, KEY, tmp_path / "file" / "index")


def test_a_failed_write_leaves_nothing(shards, tmp_path, monkeypatch):
    def fail(path):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("nlip_jax.data.index._sync", fail)
    with refused("cannot be written", "No space left"):
        build_index(shards, KEY, tmp_path / "index")
    assert os.listdir(tmp_path) == ["shards"]


def test_open_refuses(shards, tmp_path):
    with refused("holds no index", "python -m nlip_jax index"):
        Index.open(tmp_path)
    build_index(shards, KEY, tmp_path / "index")
    meta = tmp_path / "index" / "meta.json"
    text = meta.read_text()
    for broken in (text[:20], "{}", json.dumps({**json.loads(text), "format": 99})):
        meta.write_text(broken)
        with refused("cannot be used", "again"):
            Index.open(tmp_path / "index")
    meta.write_text(text)
    os.truncate(tmp_path / "index" / "rows.npy", 150)
    with refused("cannot be used", "again"):
        Index.open(tmp_path / "index")


def test_check(shards, tmp_path):
    index = build_index(shards, KEY, tmp_path / "index")
    index.check()
    index.check(shards=[os.path.relpath(s) for s in shards], caption_key=KEY)
    with refused("'json:captions'", "'txt'", "again"):
        index.check(caption_key="txt")
    with refused("has 2 shards", "asked for are 1", "shard 1 is", "00001.tar there, none here"):
        index.check(shards=shards[:1])
    with refused("00000.tar there", "00001.tar here"):
        index.check(shards=shards[::-1])
    size = os.path.getsize(shards[0])
    os.utime(shards[0], ns=(1, 1))
    with refused("00000.tar", "changed", "modification time", "again"):
        index.check()
    with open(shards[0], "ab") as file:
        file.write(bytes(512))
    with refused("00000.tar", "changed", f"size {size} -> {size + 512}"):
        index.check()
    os.unlink(shards[0])
    with refused("00000.tar", "cannot be read any more", "No such file"):
        index.check()


def test_flickr8k(shared, tmp_path):
    shards = expand_shards(str(shared / "data/flickr8k/train/{00000..00005}.tar"))
    index = build_index(shards, KEY, tmp_path / "index")
    assert index.counts == dict.fromkeys(index.counts, 0) | {"images": 6000, "captions": 30000}
    assert (np.diff(index.caption_starts) == 5).all()


def test_data_imports_without_jax():
    code = (
        "import sys; import nlip_jax.data.tar_source, nlip_jax.data.planted; "
        "sys.exit(bool({'jax', 'flax', 'grain'} & sys.modules.keys()))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
