"""Files of captions: which image each is of, and what is wrong with a file."""

import json

import pytest

from nlip_jax.data.storage import Storage
from nlip_jax.errors import UsageError
from nlip_jax.evaluators.captions.predictions import match_predictions, read_predictions

KEYS = ["val/COCO_val2014_000000000042.jpg", "val/000000000007.jpg", "b/cat.png", "12", "c/x7.jpg"]


def read(folder, content):
    file = folder / "results.json"
    file.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")
    return read_predictions(str(file), storage=Storage())


def match(predictions, keys=KEYS, numbers="file_name"):
    return match_predictions(predictions, keys, path="results.json", numbers=numbers)


def test_reads_cocos_results(tmp_path):
    records = [{"image_id": 42, "caption": "a dog", "id": 1}, {"image_id": "cat", "caption": ""}]
    assert read(tmp_path, records) == {42: "a dog", "cat": ""}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "results.json cannot be read: Expecting property"),
        ({"image_id": 1, "caption": "a"}, r"must be \[\{"),
        ([{"image_id": 1.5, "caption": "a"}], "record 0 must have image_id, a number or a name"),
        ([{"image_id": 1, "caption": "a"}, {"image_id": 2}], "record 1 must have"),
        ([[1, "a"]], "record 0 must have"),
        ([{"image_id": 1, "caption": "a"}] * 2, "two captions for image_id=1;"),
    ],
)
def test_refuses_files(tmp_path, content, message):
    with pytest.raises(UsageError, match=message) as found:
        read(tmp_path, content)
    assert "\n" not in str(found.value)


def test_no_file(tmp_path):
    with pytest.raises(UsageError, match=r"nothing.json cannot be read"):
        read_predictions(str(tmp_path / "nothing.json"), storage=Storage())


def test_any_name_of_an_image():
    found = {42: "number", "000000000007.jpg": "file", "cat": "stem", "12": "key", "c/x7.jpg": "p"}
    assert match(found) == ["number", "file", "stem", "key", "p"]


def test_numbers_are_places():
    assert match({i: f"caption {i}" for i in (4, 3, 2, 1, 0)}, numbers="place") == [
        f"caption {i}" for i in range(5)
    ]


@pytest.mark.parametrize(
    ("predictions", "message"),
    [
        ({43: "a"}, "image_id=43 names no image of this set of 5, whose first is 'val/COCO_val20"),
        ({7: "a"}, "image_id=7 names 2 images of this set"),
        ({42: "a", "COCO_val2014_000000000042": "b"}, "image_id=42 and 'COCO_val2014_000000000042"),
        ({42: "a", "cat": "b"}, "3 of 5 images have no caption, such as 'val/000000000007.jpg'"),
    ],
)
def test_refuses_ids(predictions, message):
    with pytest.raises(UsageError, match=message) as found:
        match(predictions)
    assert "\n" not in str(found.value)


def test_a_whole_key_comes_first():
    """One image's key is the file name of another."""
    keys = ["1.jpg", "other/1.jpg"]
    assert match({"1.jpg": "a", "other/1.jpg": "b"}, keys) == ["a", "b"]
