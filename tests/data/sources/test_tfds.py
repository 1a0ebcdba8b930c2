import json
import os
import pickle
import subprocess
import sys

import numpy as np
import pytest
import tensorflow_datasets as tfds
from array_record.python.array_record_module import ArrayRecordWriter
from tars import encode, pixels
from tensorflow_datasets.proto import tf_example_pb2

from nlip_jax.data.failures import ReadError
from nlip_jax.data.source import Place
from nlip_jax.data.sources.tfds import TfdsSource
from nlip_jax.errors import UsageError

NAME = "coco_captions/2014:1.1.0"  # one whose code is in TFDS and needs TensorFlow
IMAGES = [encode(pixels(seed)) for seed in range(6)]
TEXTS = [
    ["a", "\u05d0 \U0001f600"],
    ["c"],
    [],
    ["d", " ", "f nul\0"],
    ["g"],
    ["h"],
]
FEATURES = tfds.features.FeaturesDict(
    {
        "image": tfds.features.Image(),
        "image/filename": tfds.features.Text(),
        "captions": tfds.features.Sequence({"id": np.int64, "text": tfds.features.Text()}),
        "pair": tfds.features.Sequence(tfds.features.Text(), length=2),
        "title": tfds.features.Text(),
    }
)


def example(number):
    message = tf_example_pb2.Example()
    feature = message.features.feature
    feature["image"].bytes_list.value.append(IMAGES[number])
    feature["image/filename"].bytes_list.value.append(f"{number}.jpg".encode())
    feature["captions/id"].int64_list.value.extend(range(len(TEXTS[number])))
    feature["captions/text"].bytes_list.value.extend(text.encode() for text in TEXTS[number])
    feature["pair"].bytes_list.value.extend([b"left %d" % number, b"right %d" % number])
    feature["title"].bytes_list.value.append(b"" if number == 2 else b"title %d" % number)
    return message.SerializeToString()


def write(folder, lengths=(4, 2), file_format="array_record"):
    """A prepared data set on disk, as TFDS would have written it."""
    place = folder / "coco_captions" / "2014" / "1.1.0"
    place.mkdir(parents=True)
    FEATURES.save_config(str(place))
    numbers = iter(range(6))
    for shard, length in enumerate(lengths):
        name = f"coco_captions-train.{file_format}-{shard:05}-of-{len(lengths):05}"
        writer = ArrayRecordWriter(str(place / name), "group_size:1")
        for _, number in zip(range(length), numbers, strict=False):
            writer.write(example(number))
        writer.close()
    info = {
        "name": "coco_captions",
        "configName": "2014",
        "version": "1.1.0",
        "fileFormat": file_format,
        "moduleName": "tensorflow_datasets.object_detection.coco_captions",
        "splits": [
            {
                "name": "train",
                "shardLengths": [str(length) for length in lengths],
                "numBytes": "1000",
                "filepathTemplate": "{DATASET}-{SPLIT}.{FILEFORMAT}-{SHARD_X_OF_Y}",
            }
        ],
    }
    (place / "dataset_info.json").write_text(json.dumps(info))
    return place


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tfds")
    write(folder)
    return str(folder)


def open_tfds(prepared, **options):
    return TfdsSource(NAME, data_dir=prepared, **{"caption_key": "captions/text", **options})


def captions(source, epoch=0):
    found = []
    for example_id in range(len(source)):
        try:
            found.append(source.caption(example_id, epoch))
        except ReadError as error:
            found.append(error.kind)
    return found


def test_expand_sequence(prepared):
    source = open_tfds(prepared)
    assert (source.num_images, len(source), source.draws_captions) == (6, 8, False)
    assert [source.image_id(i) for i in range(8)] == [0, 0, 1, 3, 3, 3, 4, 5]
    texts = ["a", "\u05d0 \U0001f600", "c", "d", "unreadable_caption", "f nul", "g", "h"]
    assert captions(source) == captions(source, 1) == texts
    assert [source.picture(i) for i in range(6)] == IMAGES
    (numbering,) = source.numberings
    assert numbering.length == 8
    assert source.truth() is None
    assert len(source.holes) == 0
    for outside in (-1, 8):
        with pytest.raises(IndexError):
            source.image_id(outside)


def test_sample_draws_every_caption_anew_every_epoch(prepared):
    source = open_tfds(prepared, captions="sample")
    assert (len(source), source.image_id(3), source.draws_captions) == (6, 3, True)
    drawn = np.array([captions(source, epoch) for epoch in range(40)])
    assert set(drawn[:, 0]) == {"a", "\u05d0 \U0001f600"}
    assert set(drawn[:, 2]) == {"unreadable_caption"}
    assert set(drawn[:, 3]) == {"d", "f nul"}
    assert captions(source, 7) == captions(open_tfds(prepared, captions="sample"), 7)
    other = open_tfds(prepared, captions="sample", seed=1)
    assert any(captions(other, epoch) != list(drawn[epoch]) for epoch in range(40))


def test_features_of_one_text_and_of_fixed_length(prepared):
    title = open_tfds(prepared, caption_key="title")
    assert captions(title)[:4] == ["title 0", "title 1", "unreadable_caption", "title 3"]
    pair = open_tfds(prepared, caption_key="pair")
    assert len(pair) == 12
    assert captions(pair)[2:4] == ["left 1", "right 1"]
    assert pair.image_id(11) == 5
    sampled = open_tfds(prepared, caption_key="pair", captions="sample")
    assert sampled.caption(4, 0) in ("left 4", "right 4")


def test_parts_of_splits(prepared):
    part = open_tfds(prepared, split="train[3:5]")
    assert captions(part) == ["d", "unreadable_caption", "f nul", "g"]
    assert part.picture(1) == IMAGES[4]
    shard = f"{prepared}/coco_captions/2014/1.1.0/coco_captions-train.array_record-0000"
    assert part.place(0) == Place(f"{shard}0-of-00002", "record 3")
    assert part.place(1) == Place(f"{shard}1-of-00002", "record 0")


def test_fingerprints(prepared, tmp_path):
    write(tmp_path)
    same = [
        open_tfds(prepared),
        open_tfds(str(tmp_path)),
        TfdsSource("coco_captions", data_dir=prepared, caption_key="captions/text"),
    ]
    assert len({source.fingerprint for source in same}) == 1
    assert len({source.numberings for source in same}) == 1
    others = [
        open_tfds(prepared, **options)
        for options in (
            {"captions": "sample"},
            {"captions": "sample", "seed": 1},
            {"split": "train[:5]"},
            {"caption_key": "title"},
        )
    ]
    assert len({source.fingerprint for source in [*same, *others]}) == 5
    # The draws do not change what an id means.
    assert others[0].numberings == others[1].numberings


def test_counts_are_kept(prepared, tmp_path, monkeypatch):
    first = open_tfds(prepared, counts=tmp_path / "counts")
    assert len(list((tmp_path / "counts").iterdir())) == 1
    monkeypatch.delattr(TfdsSource, "_num_captions")
    again = open_tfds(prepared, counts=str(tmp_path / "counts"))
    assert captions(again) == captions(first)


def test_pickles_without_tfds(prepared):
    """A worker process reads without importing TFDS, and nothing here imports TensorFlow."""
    source = open_tfds(prepared)
    code = (
        "import pickle, sys; source = pickle.load(sys.stdin.buffer); "
        "print(source.caption(2), len(source.picture(5)), source.place(4).key); "
        "print([m for m in ('tensorflow', 'tensorflow_datasets', 'jax') if m in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], input=pickle.dumps(source), check=True, capture_output=True
    )
    assert done.stdout.decode().split("\n")[:2] == [f"c {len(IMAGES[5])} record 0", "[]"]
    assert "tensorflow" not in sys.modules


def test_damaged_and_missing_files(tmp_path):
    place = write(tmp_path)
    source = open_tfds(str(tmp_path), captions="sample")
    shard = place / "coco_captions-train.array_record-00001-of-00002"
    shard.write_bytes(bytes(shard.stat().st_size))
    for read in (source.picture, source.caption):
        with pytest.raises(ReadError) as raised:
            read(4)
        assert raised.value.kind == "shard_unreadable"
    assert source.picture(3) == IMAGES[3]
    with pytest.raises(UsageError, match=r"cannot be counted: record 0 of .*00001-of-00002"):
        open_tfds(str(tmp_path))
    os.remove(shard)
    with pytest.raises(UsageError, match=r"is not there: .*00001-of-00002"):
        open_tfds(str(tmp_path), captions="sample")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"split": "valid"}, r"Unknown split 'valid'.*; it has train"),
        ({"split": "train[:0]"}, "split 'train"),
        ({"image_key": "img"}, "no feature 'img' with an image; with bytes it has captions"),
        ({"image_key": "pair"}, "no feature 'pair' with an image"),
        ({"caption_key": "captions/id"}, "no feature 'captions/id' with a text"),
        ({"caption_key": "captions"}, "no feature 'captions' with a text"),
        ({"captions": "all"}, "captions='all': must be one of expand, sample"),
    ],
)
def test_wrong_options(prepared, options, message):
    with pytest.raises(UsageError, match=message):
        open_tfds(prepared, **options)


@pytest.mark.parametrize("name", ["flickr30k", "coco_captions/2017", "coco_captions:9.9.9", "a b"])
def test_not_prepared(prepared, name):
    with pytest.raises(UsageError, match=r"finds no data set .*download_and_prepare\(\)") as raised:
        TfdsSource(name, data_dir=prepared)
    assert f"tfds.builder({name!r}, data_dir={prepared!r}, file_format='array_record')" in str(
        raised.value
    )


def test_prepared_in_another_format(tmp_path):
    write(tmp_path, file_format="tfrecord")
    with pytest.raises(UsageError, match="in the format tfrecord; prepare it"):
        open_tfds(str(tmp_path))
