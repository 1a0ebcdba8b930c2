import io
import json
import tarfile

import fsspec
import pytest
from PIL import Image
from shards import contents, left_out, scan
from tars import encode, pixels

from nlip_jax.data.formats.caption_files import parse_caption_file
from nlip_jax.data.formats.folder import FolderFormat
from nlip_jax.data.storage import Storage
from nlip_jax.errors import UsageError

A, B = encode(pixels(0)), encode(pixels(1))

LAYOUTS = {
    "coco": {
        "images": [{"id": 7, "file_name": "a.jpg"}, {"id": 9, "file_name": "sub/b.jpg"}],
        "annotations": [
            {"image_id": 9, "caption": "b1"},
            {"image_id": 7, "caption": "a1 "},
            {"image_id": 9, "caption": "b2"},
        ],
    },
    "records": [
        {"filename": "a.jpg", "captions": ["a1"]},
        {"filename": "sub/b.jpg", "captions": ["b1", "b2"]},
    ],
    "one caption a record": [
        {"image": "a.jpg", "caption": "a1"},
        {"image": "sub/b.jpg", "caption": "b1"},
        {"image": "sub/b.jpg", "caption": "b2"},
    ],
    "karpathy": {
        "dataset": "x",
        "images": [
            {"filename": "a.jpg", "split": "train", "sentences": [{"raw": "a1", "tokens": []}]},
            {"filename": "b.jpg", "filepath": "sub", "sentences": [{"raw": "b1"}, {"raw": "b2"}]},
        ],
    },
    "mapping": {"a.jpg": "a1", "sub/b.jpg": ["b1", "b2"]},
    "lines of records": '{"file": "a.jpg", "caption": "a1"}\n'
    '{"file": "sub/b.jpg", "caption": ["b1", "b2"]}\n',
    "token": "a.jpg#0\ta1\nsub/b.jpg#0\tb1\r\n\nsub/b.jpg#1\tb2",
    "token without numbers": "a.jpg\ta1\nsub/b.jpg\tb1\nsub/b.jpg\tb2\n",
}


@pytest.fixture
def images(tmp_path):
    (tmp_path / "sub").mkdir()
    (tmp_path / "a.jpg").write_bytes(A)
    (tmp_path / "sub" / "b.jpg").write_bytes(B)
    return tmp_path


def write(folder, document):
    path = folder / "captions.json"
    text = document if isinstance(document, str) else json.dumps(document)
    path.write_bytes(text.encode("utf-8", "surrogatepass"))
    return str(path)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_layouts(images, layout):
    assert contents(FolderFormat(), write(images, LAYOUTS[layout])) == [
        ("a.jpg", A, ["a1"]),
        ("sub/b.jpg", B, ["b1", "b2"]),
    ]


def test_root(images):
    (images / "elsewhere").mkdir()
    path = write(images / "elsewhere", LAYOUTS["mapping"])
    assert [image for _, image, _ in contents(FolderFormat(), path)] == ["missing_image"] * 2
    assert [image for _, image, _ in contents(FolderFormat(root=str(images)), path)] == [A, B]


def test_splits(images):
    records = [{"file": f"{s}.jpg", "split": s, "caption": s} for s in ("train", "val", "restval")]
    path = write(images, {"images": [*records, {"file": "none.jpg", "caption": "none"}]})
    found = contents(FolderFormat(splits=("train", "restval")), path)
    assert [key for key, *_ in found] == ["train.jpg", "restval.jpg"]
    assert len(contents(FolderFormat(), path)) == 4


# Crossmodal-3600 as it is given out, with fields that do not matter here.
XM3600 = "\n".join(
    json.dumps(
        {
            "image/key": key,
            "image/locale": "de",
            "de": {"caption": captions, "caption/tokenized": captions},
            "en": {"caption": [f"{c} in English" for c in captions]},
        }
    )
    for key, captions in (("a", ["a1"]), ("sub/b", ["b1", "b2"]))
)


@pytest.mark.parametrize("count", [1, 2])
def test_languages(images, count):
    path = write(images, "\n".join(XM3600.split("\n")[:count]))
    german = [("a.jpg", A, ["a1"]), ("sub/b.jpg", B, ["b1", "b2"])]
    assert contents(FolderFormat(language="de"), path) == german[:count]
    assert contents(FolderFormat(language="en"), path)[0][2] == ["a1 in English"]
    assert left_out(scan(FolderFormat(language="fr"), path)) == {"without_caption": count}
    records = [{"file": "a.jpg", "de": "a1"}, {"file": "sub/b.jpg", "de": ["b1", "b2"]}]
    assert contents(FolderFormat(language="de"), write(images, records)) == german
    assert FolderFormat().identity() != FolderFormat(language="de").identity()


@pytest.mark.parametrize("layout", ["coco", "mapping", "token"])
def test_layouts_without_languages(images, layout):
    with pytest.raises(UsageError, match=r"language='de': only .*records have several"):
        FolderFormat(language="de").scan(write(images, LAYOUTS[layout]), Storage())


def test_what_is_of_no_use_is_counted(images):
    document = {
        "images": [{"id": i, "file_name": f"{i}.jpg"} for i in range(5)],
        "annotations": [
            {"image_id": 0, "caption": "fine"},
            {"image_id": 1, "caption": " "},
            {"image_id": 2, "caption": 5},
            {"image_id": 3, "caption": None},
            {"image_id": 99, "caption": "of no image"},
            {"image_id": 98, "caption": "of no image"},
        ],
    }
    assert left_out(scan(FolderFormat(), write(images, document))) == {
        "blank_caption": 1,
        "unreadable_caption": 1,
        "without_caption": 2,
        "without_image": 2,
    }


def test_texts_of_the_world(images):
    document = {"\u05d0.jpg": "\u200f\u05d0\u05d1 \U0001f600", "b\ud800.jpg": "half \ud800 nul\0."}
    assert contents(FolderFormat(), write(images, json.dumps(document))) == [
        ("\u05d0.jpg", "missing_image", ["\u200f\u05d0\u05d1 \U0001f600"]),
        ("b?.jpg", "missing_image", ["half ? nul ."]),
    ]
    separators = "a.jpg#0\ta\u2028b\x0bc\x85d"
    assert parse_caption_file(b"\xef\xbb\xbf" + separators.encode()) == {
        "a.jpg": ["a\u2028b\x0bc\x85d"]
    }
    assert parse_caption_file(b"a#b.jpg#12\tx\ty\n") == {"a#b.jpg": ["x\ty"]}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("no tab", "neither JSON nor FILE<tab>caption in the line 'no tab'"),
        ("{", "captions file .*: Expecting"),
        ("[" * 100_000, "nested too deeply"),
        ('{"file": "a.jpg", "caption": "a"}\n{"file', "line 2 is no JSON"),
        ("[1]", "record 0 has no filename or .*: int"),
        ('[{"url": "x", "caption": "y"}]', "record 0 has no filename or .*: url, caption"),
        ('{"images": [{"file_name": "x"}], "annotations": []}', "has no 'id'"),
        (
            '{"images": [{"id": 1, "file_name": "x"}], "annotations": [{"image_id": 1}]}',
            "has no 'caption'",
        ),
        ("\ud800\t", "captions file .*utf-8"),
    ],
)
def test_no_captions_file(images, text, message):
    with pytest.raises(UsageError, match=message):
        FolderFormat().scan(write(images, text), Storage())


def test_coco_mini(shared, tmp_path):
    """The captions file of real photos, with the photos beside it."""
    source = shared / "data" / "coco_mini"
    document = json.loads((source / "captions.json").read_text())["images"]
    train = {image["key"]: image for image in document if image["split"] == "train"}
    with tarfile.open(source / "train" / "00000.tar") as tar:
        for member in tar:
            if member.name.endswith(".jpg"):
                image = train[member.name.removesuffix(".jpg")]
                (tmp_path / image["filename"]).write_bytes(tar.extractfile(member).read())
    format = FolderFormat(root=str(tmp_path), splits=("train",))
    found = contents(format, source / "captions.json")
    assert len(found) == len(train) == 80
    for key, image, captions in found[::8]:
        (record,) = [one for one in train.values() if one["filename"] == key]
        assert captions == [caption.strip() for caption in record["captions"]]
        assert min(Image.open(io.BytesIO(image)).size) == 224


def test_remote_folder():
    files = fsspec.filesystem("memory")
    files.pipe({"/folder-test/captions.txt": b"a.jpg#0\tx\n", "/folder-test/a.jpg": A})
    assert contents(FolderFormat(), "memory://folder-test/captions.txt") == [("a.jpg", A, ["x"])]
