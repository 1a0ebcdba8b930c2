import json
import stat
import zipfile

import fsspec
import numpy as np
import pytest
from shards import contents, left_out, scan
from tars import encode, pixels

from nlip_jax.data.failures import ReadError
from nlip_jax.data.formats.labelled import LabelledFormat
from nlip_jax.data.formats.labelled_folder import LabelledFolderFormat
from nlip_jax.data.storage import Storage
from nlip_jax.errors import UsageError

IMAGES = [encode(pixels(seed)) for seed in range(3)]


def write(path, members, compression=zipfile.ZIP_STORED):
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, data in members:
            archive.writestr(name, data)
    return str(path)


def write_names(path, **names):
    path.write_text(json.dumps({"folders": list(names), "classnames": list(names.values())}))
    return str(path)


@pytest.mark.parametrize("compression", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_zip(tmp_path, compression):
    members = [
        ("data/sea_lion/b.JPG", IMAGES[0]),
        ("data/caf\u00e9/x.png", IMAGES[1]),
        ("data/sea_lion/a.jpeg", bytes(100_000)),
    ]
    path = write(tmp_path / "x.zip", members, compression)
    assert contents(LabelledFormat(template="{}, a photo"), path) == [
        ("data/sea_lion/b.JPG", IMAGES[0], ["sea lion, a photo"]),
        ("data/caf\u00e9/x.png", IMAGES[1], ["caf\u00e9, a photo"]),
        ("data/sea_lion/a.jpeg", bytes(100_000), ["sea lion, a photo"]),
    ]


def test_names_of_classes(tmp_path):
    path = write(tmp_path / "x.zip", [("n01/a.jpg", IMAGES[0]), ("n_02/a.jpg", IMAGES[1])])
    names = tmp_path / "names.json"
    labelled = LabelledFormat(class_names=write_names(names, n01="tench {}"))
    assert [c for *_, c in contents(labelled, path)] == [
        ["a photo of a tench {}."],
        ["a photo of a n 02."],
    ]
    rows = scan(labelled, path).rows
    write_names(names, n01="shark")
    opened = labelled.open(path, Storage())
    with pytest.raises(ReadError, match=r"shark.* is not what was indexed"):
        opened.captions(rows[0])
    assert opened.captions(rows[1]) == [["a photo of a n 02."]]


def test_what_is_of_no_use_is_counted(tmp_path):
    link = zipfile.ZipInfo("a/link.jpg")
    link.create_system, link.external_attr = 3, (stat.S_IFLNK | 0o777) << 16
    packed = zipfile.ZipInfo("a/lzma.jpg")
    packed.compress_type = zipfile.ZIP_LZMA
    members = [
        ("a/", b""),
        ("a/0.jpg", IMAGES[0]),
        ("top.jpg", IMAGES[0]),
        ("a/empty.jpg", b""),
        ("a/readme.txt", b"x"),
        ("__MACOSX/a/._0.jpg", b"x"),
        ("../../a/outside.jpg", IMAGES[1]),
        (link, "/etc/passwd"),
        (packed, IMAGES[0]),
    ]
    path = write(tmp_path / "x.zip", members)
    with zipfile.ZipFile(path, "a") as archive, pytest.warns(UserWarning, match="Duplicate"):
        archive.writestr("a/0.jpg", IMAGES[2])
    found = scan(LabelledFormat(), path)
    assert left_out(found) == {
        "without_caption": 1,
        "unusable_image": 2,
        "other": 2,
        "not_a_file": 1,
        "duplicate": 1,
    }
    before = sorted(tmp_path.parent.rglob("*"))
    assert [(key, image) for key, image, _ in contents(LabelledFormat(), path)] == [
        ("a/0.jpg", IMAGES[0]),
        ("../../a/outside.jpg", IMAGES[1]),
    ]
    assert sorted(tmp_path.parent.rglob("*")) == before


def test_encrypted_members_are_counted(tmp_path):
    path = tmp_path / "x.zip"
    write(path, [("a/0.jpg", IMAGES[0]), ("a/1.jpg", IMAGES[1])])
    data = bytearray(path.read_bytes())
    data[data.index(b"PK\x01\x02") + 8] |= 1
    path.write_bytes(data)
    found = scan(LabelledFormat(), path)
    assert left_out(found) == {"unusable_image": 1}
    assert found.complaint == "a/0.jpg: encrypted"


def test_files_that_are_no_zip(tmp_path):
    path = tmp_path / "x.zip"
    write(path, [("a/0.jpg", IMAGES[0])])
    data = path.read_bytes()
    for content in (b"", b"text" * 99, data[:-30]):
        path.write_bytes(content)
        with pytest.raises(UsageError, match="is no whole ZIP file"):
            LabelledFormat().scan(str(path), Storage())
    with pytest.raises(FileNotFoundError):
        LabelledFormat().scan(str(tmp_path / "none"), Storage())


def test_damage_is_a_read_error(tmp_path):
    path = tmp_path / "x.zip"
    noise = np.random.default_rng(0).bytes(1000) + bytes(1000)
    write(path, [("a/0.jpg", noise), ("a/1.jpg", noise)], zipfile.ZIP_DEFLATED)
    rows = scan(LabelledFormat(), path).rows
    data = bytearray(path.read_bytes())
    data[60:900] = bytes(840)
    path.write_bytes(data)
    opened = LabelledFormat().open(str(path), Storage())
    with pytest.raises(ReadError) as raised:
        opened.image(rows[0])
    assert raised.value.kind in ("truncated_image", "missing_bytes")
    assert opened.image(rows[1]) == noise
    data[:4] = b"none"
    path.write_bytes(data[: int(rows[1]["offset"]) + 50])
    with pytest.raises(ReadError, match="no member begins at byte 0"):
        opened.image(rows[0])
    assert opened.key(rows[0]) == "byte 0"
    with pytest.raises(ReadError) as raised:
        opened.image(rows[1])
    assert raised.value.kind == "missing_bytes"


@pytest.mark.parametrize(
    "text",
    ["", "[]", "{}", '{"folders": ["a"], "classnames": []}', '{"folders": [1], "classnames": [2]}'],
)
def test_no_class_names(tmp_path, text):
    (tmp_path / "names.json").write_text(text)
    path = write(tmp_path / "x.zip", [("a/0.jpg", IMAGES[0])])
    with pytest.raises(UsageError, match="two lists of the same length"):
        LabelledFormat(class_names=str(tmp_path / "names.json")).scan(path, Storage())


def test_a_file_of_class_names_that_is_not_there(tmp_path):
    path = write(tmp_path / "x.zip", [("a/0.jpg", IMAGES[0])])
    with pytest.raises(UsageError, match=r"/no/names\.json. cannot be read"):
        LabelledFormat(class_names="/no/names.json").scan(path, Storage())


def test_template_needs_a_place_for_the_name():
    for format in (LabelledFormat, LabelledFolderFormat):
        with pytest.raises(UsageError, match="template='a photo'"):
            format(template="a photo")


def test_folders(tmp_path):
    for name in ("n1/b.jpg", "n1/a.png", "n1/notes.txt", "n [2]/x.jpg", "other/y.jpg"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(IMAGES[0] + name.encode())
    path = write_names(tmp_path / "names.json", **{"n1": "tench", "n [2]": "\u05d0", "n3": "none"})
    format = LabelledFolderFormat(template="{}!")
    found = scan(format, path)
    assert left_out(found) == {"without_image": 1}
    assert [(key, captions) for key, _, captions in contents(format, path)] == [
        ("n1/a.png", ["tench!"]),
        ("n1/b.jpg", ["tench!"]),
        ("n [2]/x.jpg", ["\u05d0!"]),
    ]

    # Images that come and go leave the others what they were.
    (tmp_path / "n1/0.jpg").write_bytes(IMAGES[1])
    (tmp_path / "n1/a.png").unlink()
    opened = format.open(path, Storage())
    assert opened.image(found.rows[1]) == IMAGES[0] + b"n1/b.jpg"
    with pytest.raises(ReadError) as raised:
        opened.image(found.rows[0])
    assert raised.value.kind == "missing_image"
    assert opened.key(found.rows[0]) == "n1/(an image that is gone)"


def test_caltech101(shared):
    folder = shared / "data" / "caltech101_test"
    path, names = folder / "caltech101_test.zip", folder / "classnames.json"
    found = contents(LabelledFormat(class_names=str(names)), path)
    assert len(found) == 505
    document = json.loads(names.read_text())
    expected = dict(zip(document["folders"], document["classnames"], strict=True))
    with zipfile.ZipFile(path) as archive:
        for key, image, captions in found:
            assert image == archive.read(key)
            assert captions == [f"a photo of a {expected[key.split('/')[0]]}."]


def test_remote_zip_and_folders(tmp_path):
    files = fsspec.filesystem("memory")
    with open(write(tmp_path / "x.zip", [("a/0.jpg", IMAGES[0])]), "rb") as file:
        files.pipe("/label-test/x.zip", file.read())
    names = write_names(tmp_path / "names.json", a="cat")
    files.pipe("/label-test/names.json", (tmp_path / "names.json").read_bytes())
    files.pipe("/label-test/a/0.jpg", IMAGES[0])
    expected = [("a/0.jpg", IMAGES[0], ["a photo of a cat."])]
    labelled = LabelledFormat(class_names=names)
    assert contents(labelled, "memory://label-test/x.zip") == expected
    assert contents(LabelledFolderFormat(), "memory://label-test/names.json") == expected
