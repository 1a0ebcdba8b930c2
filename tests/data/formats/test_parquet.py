import subprocess
import sys
import threading

import fsspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from shards import contents, left_out, scan
from tars import encode, pixels

from nlip_jax.data.failures import ReadError
from nlip_jax.data.formats import parquet_file
from nlip_jax.data.formats.parquet import ParquetFormat
from nlip_jax.data.storage import Storage
from nlip_jax.errors import UsageError

IMAGES = [encode(pixels(seed)) for seed in range(3)]
HF_IMAGE = pa.struct([("bytes", pa.binary()), ("path", pa.string())])


def write(path, columns, **options):
    pq.write_table(pa.table(columns), path, **options)
    return str(path)


def test_as_hugging_face_writes_them(tmp_path):
    """A struct of bytes and path; bytes first, a path stands in for them."""
    (tmp_path / "c.jpg").write_bytes(IMAGES[2])
    images = [
        {"bytes": IMAGES[0], "path": "a.jpg"},
        {"bytes": IMAGES[1], "path": None},
        {"bytes": None, "path": "c.jpg"},
        {"bytes": None, "path": "gone.jpg"},
        {"bytes": b"", "path": "empty.jpg"},
    ]
    columns = {
        "image": pa.array(images, HF_IMAGE),
        "caption": [["one", " two "], ["\u05d0 \U0001f600"], ["c"], ["d"], ["e"]],
        "label": [1, 2, 3, 4, 5],
    }
    path = write(tmp_path / "x.parquet", columns, row_group_size=2)
    assert contents(ParquetFormat(), path) == [
        ("a.jpg", IMAGES[0], ["one", "two"]),
        ("row 1 of row group 0", IMAGES[1], ["\u05d0 \U0001f600"]),
        ("c.jpg", IMAGES[2], ["c"]),
        ("gone.jpg", "missing_image", ["d"]),
        ("empty.jpg", "empty_image", ["e"]),
    ]


@pytest.mark.parametrize("kind", [pa.binary(), pa.large_binary()])
def test_images_as_bytes(tmp_path, kind):
    columns = {"jpg": pa.array(IMAGES, kind), "text": pa.array(list("abc"), pa.large_string())}
    path = write(tmp_path / "x.parquet", columns)
    format = ParquetFormat(image_column="jpg", caption_columns=("text",))
    assert [(image, captions) for _, image, captions in contents(format, path)] == [
        (IMAGES[0], ["a"]),
        (IMAGES[1], ["b"]),
        (IMAGES[2], ["c"]),
    ]


@pytest.mark.parametrize("kind", [pa.string(), pa.dictionary(pa.int32(), pa.string())])
def test_images_as_paths(tmp_path, kind):
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "a.jpg").write_bytes(IMAGES[0])
    columns = {"image": pa.array(["a.jpg", "a.jpg"], kind), "caption": pa.array(["x", "y"], kind)}
    path = write(tmp_path / "x.parquet", columns)
    for root in (str(tmp_path / "images"), ""):
        image = IMAGES[0] if root else "missing_image"
        found = contents(ParquetFormat(root=root), path)
        assert found == [("a.jpg", image, ["x"]), ("a.jpg", image, ["y"])]


@pytest.mark.parametrize("kind", [pa.list_, pa.large_list, lambda t: pa.list_(t, 2)])
def test_lists_of_captions_and_fallback(tmp_path, kind):
    lists = pa.array([["a", "b"], None, ["c", "d"], ["", None]], kind(pa.string()))
    columns = {"image": IMAGES + IMAGES[:1], "many": lists, "one": ["w", "x", None, None]}
    path = write(tmp_path / "x.parquet", columns)
    format = ParquetFormat(caption_columns=("many", "one"))
    assert [captions for *_, captions in contents(format, path)] == [["a", "b"], ["x"], ["c", "d"]]
    assert left_out(found := scan(format, path)) == {"blank_caption": 1}
    assert format.open(path, Storage()).captions(found.rows[0]) == [["a", "b"], ["w"]]


@pytest.mark.parametrize("statistics", [True, False])
def test_what_is_of_no_use_is_counted(tmp_path, statistics):
    """Missing images are found with statistics and without, other rows are not harmed."""
    images = [{"bytes": b"x", "path": "0"}, None, {"bytes": None, "path": None}] + [
        {"bytes": b"x", "path": None}
    ] * 4
    captions = [b"fine", b"x", b"x", b"", None, b"caf\xe9", b"nul\0 \xd7\x90"]
    # Parquet does not check that texts are UTF-8.
    text = pa.array(captions, pa.binary()).view(pa.string())
    columns = {"image": pa.array(images, HF_IMAGE), "caption": text}
    path = write(tmp_path / "x.parquet", columns, row_group_size=3, write_statistics=statistics)
    found = scan(ParquetFormat(), path)
    assert left_out(found) == {
        "unusable_image": 2,
        "blank_caption": 1,
        "without_caption": 1,
        "unreadable_caption": 1,
    }
    assert [c for *_, c in contents(ParquetFormat(), path)] == [["fine"], ["nul  \u05d0"]]
    assert found.rows.tolist() == [(0, 0), (2, 0)]


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"img": [b"x"], "caption": ["y"]}, "no column 'image' with image files"),
        ({"image": [1], "caption": ["y"]}, r"it has image \(int64\), caption \(string\)"),
        ({"image": [{"width": 1}], "caption": ["y"]}, "no column 'image'"),
        ({"image": [b"x"], "text": ["y"]}, r"no column 'caption' .*; it has .*text \(string\)"),
        ({"image": [b"x"], "caption": [3]}, "no column 'caption' with texts"),
        ({"image": [b"x"], "caption": [[3]]}, "no column 'caption' with texts"),
        ({"image": [b"x"], "caption": [{"raw": "y"}]}, "no column 'caption' with texts"),
    ],
)
def test_other_columns(tmp_path, columns, message):
    with pytest.raises(UsageError, match=message):
        ParquetFormat().scan(write(tmp_path / "x.parquet", columns), Storage())


def test_files_that_are_no_parquet(tmp_path):
    path = tmp_path / "x.parquet"
    write(path, {"image": IMAGES, "caption": ["a", "b", "c"]})
    data = path.read_bytes()
    for content in (b"", b"text" * 99, data[: len(data) // 2]):
        path.write_bytes(content)
        with pytest.raises(UsageError, match="is no Parquet file"):
            ParquetFormat().scan(str(path), Storage())
    footer = int.from_bytes(data[-8:-4], "little")
    path.write_bytes(data[: -8 - footer] + b"\xff" * footer + data[-8:])
    with pytest.raises((OSError, UsageError)):
        ParquetFormat().scan(str(path), Storage())
    with pytest.raises(FileNotFoundError):
        ParquetFormat().scan(str(tmp_path / "none"), Storage())


def test_damaged_row_group_is_a_read_error(tmp_path):
    path = tmp_path / "x.parquet"
    rng = np.random.default_rng(0)
    columns = {"image": [rng.bytes(5000) for _ in range(4)], "caption": list("abcd")}
    write(path, columns, row_group_size=2, use_dictionary=False)
    rows = scan(ParquetFormat(), path).rows
    start = pq.read_metadata(path).row_group(0).column(0).data_page_offset
    data = bytearray(path.read_bytes())
    data[start : start + 2000] = bytes(2000)
    path.write_bytes(data)
    opened = ParquetFormat().open(str(path), Storage())
    with pytest.raises(ReadError) as raised:
        opened.image(rows[0])
    assert raised.value.kind == "shard_unreadable"
    assert opened.image(rows[3]) == columns["image"][3]
    for row, kind in [((1, 9), "missing_bytes"), ((7, 0), "shard_unreadable")]:
        with pytest.raises(ReadError) as raised:
            opened.image(np.array([row], ParquetFormat.row)[0])
        assert raised.value.kind == kind


def test_group_is_decoded_once_in_order_and_memory_is_bounded(tmp_path, monkeypatch):
    reads = []
    read_leaf = parquet_file._read_leaf

    def count(parquet, group, leaf):
        reads.append((group, leaf))
        return read_leaf(parquet, group, leaf)

    recent = parquet_file._Recent(30_000)
    monkeypatch.setattr(parquet_file, "_RECENT", recent)
    path = tmp_path / "x.parquet"
    write(
        path,
        {"image": [bytes([i]) * 1000 for i in range(60)], "caption": ["c"] * 60},
        row_group_size=10,
    )
    rows = scan(ParquetFormat(), path).rows
    monkeypatch.setattr(parquet_file, "_read_leaf", count)
    opened = ParquetFormat().open(str(path), Storage())
    assert [opened.image(row)[0] for row in rows] == list(range(60))
    assert reads == [(group, "image") for group in range(6)]
    assert recent._bytes <= 30_000
    assert opened.image(rows[55])[0] == 55
    assert len(reads) == 6
    assert opened.image(rows[0])[0] == 0
    assert reads[6:] == [(0, "image")]


def test_threads_share_a_shard(tmp_path, monkeypatch):
    monkeypatch.setattr(parquet_file, "_RECENT", parquet_file._Recent(1))
    path = tmp_path / "x.parquet"
    images = [bytes([i]) * 500 for i in range(40)]
    write(path, {"image": images, "caption": [f"c{i}" for i in range(40)]}, row_group_size=5)
    rows = scan(ParquetFormat(), path).rows
    opened, wrong = ParquetFormat().open(str(path), Storage()), []

    def read(seed):
        for i in np.random.default_rng(seed).integers(0, 40, 50).tolist():
            if opened.image(rows[i]) != images[i] or opened.captions(rows[i]) != [[f"c{i}"]]:
                wrong.append(i)

    threads = [threading.Thread(target=read, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_importing_the_format_does_not_import_pyarrow():
    code = "import sys, nlip_jax.data.formats.parquet; sys.exit('pyarrow' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_remote_file(tmp_path):
    path = write(tmp_path / "x.parquet", {"image": IMAGES, "caption": ["a", "b", "c"]})
    with open(path, "rb") as file:
        fsspec.filesystem("memory").pipe("/parquet-test/x.parquet", file.read())
    assert contents(ParquetFormat(), "memory://parquet-test/x.parquet") == contents(
        ParquetFormat(), path
    )
