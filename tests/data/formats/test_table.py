import os

import fsspec
import numpy as np
import pytest
from shards import contents, left_out, scan
from tars import encode, pixels

from nlip_jax.data.failures import ReadError
from nlip_jax.data.formats.table import TableFormat
from nlip_jax.data.storage import Storage
from nlip_jax.errors import UsageError

CSV = TableFormat(image_column="image", caption_columns=("caption",), separator=",")


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    """A folder with three images."""
    folder = tmp_path_factory.mktemp("images")
    (folder / "sub").mkdir()
    for seed, name in enumerate(("a.jpg", "b.jpg", "sub/c.jpg")):
        (folder / name).write_bytes(encode(pixels(seed)))
    return folder


def write(folder, text, name="table.csv"):
    path = folder / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def test_defaults_of_open_clip(images):
    path = write(images, "filepath\ttitle\na.jpg\tone\nsub/c.jpg\ttwo\n", "t.tsv")
    assert contents(TableFormat(), path) == [
        ("a.jpg", (images / "a.jpg").read_bytes(), ["one"]),
        ("sub/c.jpg", (images / "sub/c.jpg").read_bytes(), ["two"]),
    ]


def test_quotes_separators_line_breaks_and_unicode(tmp_path):
    text = (
        'n,caption,image\r\n1,"a, b ""c""\r\nd\u2028e",x.jpg\r\n\r\n'
        '2, a 5" screen \U0001f600,\u05d0.jpg\n3,"caf\u00e9","y\nz.jpg"\n4,end,w.jpg'
    )
    for start in (b"", b"\xef\xbb\xbf"):
        found = contents(CSV, write(tmp_path, start + text.encode()))
        assert [(key, captions) for key, _, captions in found] == [
            ("x.jpg", ['a, b "c"\r\nd\u2028e']),
            ("\u05d0.jpg", ['a 5" screen \U0001f600']),
            ("y\nz.jpg", ["caf\u00e9"]),
            ("w.jpg", ["end"]),
        ]


def test_consecutive_records_of_one_path_are_one_image(images):
    text = "image,caption\na.jpg,1\na.jpg,2\nb.jpg,3\na.jpg, \na.jpg,4\n"
    path = write(images, text)
    assert [(key, captions) for key, _, captions in contents(CSV, path)] == [
        ("a.jpg", ["1", "2"]),
        ("b.jpg", ["3"]),
        ("a.jpg", ["4"]),
    ]


def test_fallback_of_caption_columns(images):
    path = write(images, "image,x,y\na.jpg,,late\nb.jpg,first,second\nb.jpg,,third\n")
    table = TableFormat(image_column="image", caption_columns=("x", "y"), separator=",")
    assert [captions for _, _, captions in contents(table, path)] == [["late"], ["first"]]
    rows = scan(table, path).rows
    assert table.open(str(path), Storage()).captions(rows[1]) == [["first"], ["second", "third"]]


def test_what_is_of_no_use_is_counted_and_nothing_else_lost(tmp_path):
    lines = [
        b"image,caption",
        b"a.jpg,fine",
        b"b.jpg,caf\xe9 in Latin-1",
        b'c.jpg,"an open quote',
        b"d.jpg,fine too",
        b"e.jpg,three,fields",
        b"f.jpg",
        b",no path",
        b"g.jpg,  ",
        b"h.jpg,nul\0here",
        b'h.jpg,"quoted" and more',
        b'i.jpg,"open until the end',
    ]
    found = scan(CSV, path := write(tmp_path, b"\n".join(lines)))
    assert left_out(found) == {"unreadable_caption": 6, "without_image": 1, "blank_caption": 1}
    assert "byte 25" in found.complaint
    assert [(key, captions) for key, _, captions in contents(CSV, path)] == [
        ("a.jpg", ["fine"]),
        ("d.jpg", ["fine too"]),
        ("h.jpg", ["nul here"]),
    ]


def test_a_very_long_caption_is_kept_and_an_endless_one_is_not(tmp_path):
    text = f'image,caption\na.jpg,{"x" * 100_000}\nb.jpg,"{"y" * 200_000}"\nc.jpg,z\n'
    found = contents(CSV, path := write(tmp_path, text))
    lengths = {key: len(captions[0]) for key, _, captions in found}
    assert lengths == {"a.jpg": 100_000, "c.jpg": 1}
    assert left_out(scan(CSV, path)) == {"unreadable_caption": 1}


def test_images_are_looked_for_when_they_are_read(images, tmp_path):
    (tmp_path / "empty.jpg").touch()
    os.mkfifo(tmp_path / "pipe.jpg")  # must not be waited for
    paths = [
        "pipe.jpg",
        "gone.jpg",
        "empty.jpg",
        ".",
        "a\0b.jpg",
        f"{images}/a.jpg",
        "x" * 5000,
        "no://x",
    ]
    path = write(tmp_path, "\n".join(["image,caption", *(f"{p},c" for p in paths)]))
    assert [image for _, image, _ in contents(CSV, path)] == [
        "shard_unreadable",
        "missing_image",
        "empty_image",
        "missing_image",
        "missing_image",
        (images / "a.jpg").read_bytes(),
        "missing_image",
        "missing_image",
    ]


def test_root(images, tmp_path):
    path = write(tmp_path, "image,caption\nc.jpg,c\n../a.jpg,a\n")
    table = TableFormat("image", ("caption",), ",", root=str(images / "sub"))
    read = [image for _, image, _ in contents(table, path)]
    assert read == [(images / name).read_bytes() for name in ("sub/c.jpg", "a.jpg")]
    assert table.identity() == CSV.identity()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is empty"),
        ("filepath\ttitle\na\tb\n", "has no column 'image'; with separator ',' it has 'filepath"),
        ("image,title\n", "has no column 'caption'; .* it has 'image', 'title'"),
        ("image,caption\n".encode("utf-16"), "names no columns: .*utf-8"),
        (b"\x89PNG\r\n\x1a\n\x00\x00" + bytes(range(256)) * 99, "names no columns"),
        ('image,"caption\n', "names no columns: unexpected end of data"),
    ],
)
def test_no_table(tmp_path, text, message):
    with pytest.raises(UsageError, match=message):
        CSV.scan(str(write(tmp_path, text)), Storage())


@pytest.mark.parametrize("separator", ["", "\\t", '"', "\n", ",,"])
def test_separator_is_one_character(separator):
    with pytest.raises(UsageError, match="one character"):
        TableFormat(separator=separator)


def test_missing_table():
    with pytest.raises(FileNotFoundError):
        CSV.scan("/nowhere/table.csv", Storage())


def test_rows_of_another_table_are_read_errors(tmp_path):
    path = write(tmp_path, "image,caption\na.jpg,1\n")
    opened = CSV.open(str(path), Storage())
    for row in np.array([(15, 3), (14, 99), (14, 4)], CSV.row):
        with pytest.raises(ReadError):
            opened.captions(row)
        assert isinstance(opened.key(row), str)


def test_large_tables_are_scanned_in_pieces(tmp_path):
    """Records lie across the borders of what is read at once."""
    lines = [f'{i:06}.jpg,"caption {i}\n{"x" * (i % 97)}"' for i in range(20_000)]
    path = write(tmp_path, "\n".join(["image,caption", *lines]))
    assert path.stat().st_size > 1 << 20
    found = scan(CSV, path)
    assert len(found.rows) == 20_000
    opened = CSV.open(str(path), Storage())
    for i in range(0, 20_000, 777):
        assert opened.captions(found.rows[i]) == [[f"caption {i}\n{'x' * (i % 97)}".strip()]]


def test_digest_follows_paths_and_captions(tmp_path):
    digests = {
        scan(CSV, write(tmp_path, f"image,caption\n{record}\n")).digest
        for record in ("a.jpg,1", "a.jpg,2", "b.jpg,1", "a.jpg,1\na.jpg,2")
    }
    assert len(digests) == 4


def test_remote_table_with_images_beside_it(images):
    files = fsspec.filesystem("memory")
    files.pipe("/table-test/t.csv", b"image,caption\na.jpg,x\ngone.jpg,y\n/table-test/b.jpg,z\n")
    files.pipe("/table-test/a.jpg", (images / "a.jpg").read_bytes())
    assert contents(CSV, "memory://table-test/t.csv") == [
        ("a.jpg", (images / "a.jpg").read_bytes(), ["x"]),
        ("gone.jpg", "missing_image", ["y"]),
        ("/table-test/b.jpg", "missing_image", ["z"]),  # a path of this machine
    ]
    files.pipe("/table-test/t.csv", b"image,caption\nmemory://table-test/a.jpg,x\n")
    (found,) = contents(CSV, "memory://table-test/t.csv")
    assert found[1] == (images / "a.jpg").read_bytes()
