"""Labelled sets of every kind, from files to classes, and what is said of bad ones."""

import json
import pickle
import zipfile

import fsspec
import numpy as np
import pytest
import tensorflow_datasets as tfds
from array_record.python.array_record_module import ArrayRecordWriter
from ml_collections import ConfigDict
from tars import encode, pixels, write_tar
from tensorflow_datasets.proto import tf_example_pb2

from configs import base, evaluators
from nlip_jax.build.evaluation.labelled import open_labelled
from nlip_jax.build.evaluation.opening import Opening
from nlip_jax.build.evaluation.zero_shot import make_zero_shot
from nlip_jax.build.sources import indexed_sets
from nlip_jax.data.index.update import update_index
from nlip_jax.data.labelled import LabelledSet
from nlip_jax.data.storage import Storage
from nlip_jax.errors import UsageError

IMAGES = [encode(pixels(seed, h=8, w=8)) for seed in range(6)]


def opening(tmp_path, name="x"):
    return Opening(
        field=f"evaluators.zero_shot.{name}",
        workdir=tmp_path / "run",
        storage=Storage(),
        similarity="dot",
    )


def open_set(tmp_path, source, block, name="x", **fields) -> LabelledSet:
    spec = evaluators.labelled_set(source, block, **fields)
    return open_labelled(spec, opening(tmp_path, name))


def refused(tmp_path, source, block, **fields) -> str:
    with pytest.raises(UsageError) as raised:
        open_set(tmp_path, source, block, **fields)
    message = str(raised.value)
    assert "config.evaluators.zero_shot.x" in message and "\n" not in message
    return message


def pairs(found: LabelledSet):
    """(class name, image) of every image."""
    return [
        (found.class_names[label], found.source.picture(i)) for i, label in enumerate(found.labels)
    ]


def write_folders(root, members):
    for name, data in members.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(data)
    return str(root)


def write_zip(path, members):
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return str(path)


def write_webdataset(root, samples, *, names=("cat", "sea lion"), shards=1, split="test"):
    """A set in CLIP_benchmark's layout, as its converter writes it; samples: (members, label)."""
    folder = root / split
    folder.mkdir(parents=True)
    (root / "classnames.txt").write_text("".join(f"{name}\n" for name in names))
    templates = "a photo of a {c}.\na drawing of a {c}.\n"
    (root / "zeroshot_classification_templates.txt").write_text(templates)
    (folder / "nshards.txt").write_text(f"{shards}\n")
    for shard, rows in enumerate(np.array_split(np.arange(len(samples)), shards)):
        members = {}
        for row in rows:
            image, label = samples[row]
            members[f"s{row:07d}.webp"] = image
            members[f"s{row:07d}.cls"] = str(label).encode()
        write_tar(folder / f"{shard}.tar", members)
    return str(root)


FOUR = {
    "sea_lion/b.jpg": IMAGES[0],
    "Cat/a.jpg": IMAGES[1],
    "Cat/c.png": IMAGES[2],
    "sea_lion/a.jpg": IMAGES[3],
}


@pytest.fixture
def names_file(tmp_path):
    path = tmp_path / "prompts.json"
    document = {
        "classnames": ["sea lion", "cat"],
        "templates": ["a {c}", "the {c}"],
        "filip_templates": ["itap of a {c}."],
        "metric": "mean_per_class",
    }
    path.write_text(json.dumps(document))
    return str(path)


def test_class_scenes(tmp_path):
    found = open_set(tmp_path, "class_scenes", evaluators.class_scenes())
    assert found.source.caption(5) == found.class_names[found.labels[5]]
    assert len(found.templates) > 1 and found.metric == "top1"


@pytest.mark.parametrize("kind", ["zip", "image_folder"])
def test_folders(tmp_path, kind, names_file):
    if kind == "zip":
        block = evaluators.zip_set(path=write_zip(tmp_path / "x.zip", FOUR))
    else:
        block = evaluators.image_folder_set(root=write_folders(tmp_path / "set", FOUR))
    found = open_set(tmp_path, kind, block)
    # Sorted as torchvision's ImageFolder sorts them: upper case comes first.
    assert found.class_names == ("Cat", "sea lion") and found.templates == ()
    expected = {("Cat", IMAGES[1]), ("Cat", IMAGES[2]), ("sea lion", IMAGES[0])}
    assert set(pairs(found)) == expected | {("sea lion", IMAGES[3])}
    assert found.labels.dtype == np.int32

    named = open_set(tmp_path, kind, block, prompts=names_file)
    assert named.class_names == ("sea lion", "cat")
    assert named.templates == ("a {}", "the {}") and named.metric == "mean_per_class"
    assert {(name.lower(), image) for name, image in pairs(found)} == set(pairs(named))

    ordered = open_set(tmp_path, kind, block, prompts=names_file, match="order", templates="filip")
    assert {image for name, image in pairs(ordered) if name == "sea lion"} == set(IMAGES[1:3])
    assert ordered.templates == ("itap of a {}.",)
    assert pickle.loads(pickle.dumps(named.source)).picture(0) == named.source.picture(0)


@pytest.mark.parametrize("kind", ["zip", "image_folder"])
def test_class_names_beside_the_images(tmp_path, kind):
    names = {
        "folders": ["sea_lion", "Cat"],
        "classnames": ["otariine", "house cat"],
        "templates": ["a {c}"],
    }
    root = tmp_path / "set"
    root.mkdir()
    (root / "classnames.json").write_text(json.dumps(names))
    if kind == "zip":
        block = evaluators.zip_set(path=write_zip(root / "x.zip", FOUR))
    else:
        block = evaluators.image_folder_set(root=write_folders(root, FOUR))
    found = open_set(tmp_path, kind, block)
    assert found.class_names == ("otariine", "house cat") and found.templates == ("a {}",)
    assert ("otariine", IMAGES[0]) in pairs(found)
    # A set of prompts may know the folders or the names beside them.
    other = tmp_path / "prompts.json"
    other.write_text(json.dumps({"classnames": ["House-cat", "sea lion"]}))
    both = open_set(tmp_path, kind, block, prompts=str(other), templates="own")
    assert both.class_names == ("House-cat", "sea lion") and both.templates == ("a {}",)
    block.class_names = "none"
    assert open_set(tmp_path, kind, block).class_names == ("Cat", "sea lion")


def test_many_folders_of_images_are_told_apart(tmp_path):
    """Splits with the same folders and file names are not the same images."""
    block = evaluators.image_folder_set
    train = block(root=write_folders(tmp_path / "train", dict.fromkeys(FOUR, IMAGES[4])))
    test = block(root=write_folders(tmp_path / "test", FOUR))
    sets = [
        open_set(tmp_path, "image_folder", one, name=name)
        for name, one in (("a", train), ("b", test))
    ]
    assert sets[0].source.fingerprint != sets[1].source.fingerprint
    assert sets[0].class_names == sets[1].class_names


def test_an_image_folder_that_changed(tmp_path):
    root = tmp_path / "set"
    block = evaluators.image_folder_set(root=write_folders(root, FOUR))
    open_set(tmp_path, "image_folder", block)
    (root / "Cat" / "d.jpg").write_bytes(IMAGES[4])
    assert "changed since it was indexed" in refused(tmp_path, "image_folder", block)


def test_webdataset(tmp_path, names_file):
    samples = [(IMAGES[i], i % 2) for i in range(6)]
    block = evaluators.webdataset_set(root=write_webdataset(tmp_path / "wds", samples, shards=2))
    found = open_set(tmp_path, "webdataset", block)
    assert found.class_names == ("cat", "sea lion")
    assert found.templates == ("a photo of a {}.", "a drawing of a {}.")
    assert pairs(found) == [(("cat", "sea lion")[label], image) for image, label in samples]
    assert found.source.place(4).key == "s0000004" and found.source.caption(3) == "1"
    named = open_set(tmp_path, "webdataset", block, prompts=names_file)
    assert named.class_names == ("sea lion", "cat") and pairs(named) == pairs(found)
    one = open_set(tmp_path, "webdataset", block, templates="one {c}")
    assert one.templates == ("one {}",)
    two = open_set(tmp_path, "webdataset", block, templates=("one {c}", "two {}"))
    assert two.templates == ("one {}", "two {}")


def test_remote_sets(tmp_path, names_file):
    files = fsspec.filesystem("memory")
    root = tmp_path / "wds"
    write_webdataset(root, [(image, i % 2) for i, image in enumerate(IMAGES)], shards=2)
    for path in root.rglob("*.*"):
        files.pipe(f"/labelled-test/wds/{path.relative_to(root)}", path.read_bytes())
    block = evaluators.webdataset_set(root="memory://labelled-test/wds")
    found = open_set(tmp_path, "webdataset", block, prompts=names_file)
    assert [image for _, image in pairs(found)] == IMAGES and len(found.templates) == 2
    with open(write_zip(tmp_path / "x.zip", FOUR), "rb") as file:
        files.pipe("/labelled-test/zip/x.zip", file.read())
    names = {"folders": ["sea_lion", "Cat"], "classnames": ["otariine", "house cat"]}
    files.pipe("/labelled-test/zip/classnames.json", json.dumps(names).encode())
    block = evaluators.zip_set(path="memory://labelled-test/zip/x.zip")
    assert open_set(tmp_path, "zip", block, name="y").class_names == ("otariine", "house cat")


def test_caltech101(tmp_path, shared):
    folder = shared / "data" / "caltech101_test"
    block = evaluators.zip_set(path=str(folder / "caltech101_test.zip"))
    beside = open_set(tmp_path, "zip", block)
    shipped = open_set(tmp_path, "zip", block, prompts="caltech101")
    block.class_names = "none"
    alone = open_set(tmp_path, "zip", block, prompts="caltech101")
    assert beside.source.num_images == 505 and beside.num_classes == 101
    # This edition has no background.
    assert shipped.num_classes == 101 and shipped.metric == "mean_per_class"
    assert len(shipped.templates) == 34 and shipped.templates == beside.templates
    names = json.loads((folder / "classnames.json").read_text())
    expected = dict(zip(names["folders"], names["classnames"], strict=True))
    for found in (beside, shipped, alone):
        for image in range(0, 505, 50):
            key = found.source.place(image).key
            name = " ".join(found.class_names[found.labels[image]].split())
            assert name == expected[key.split("/")[0]]
        assert np.bincount(found.labels).tolist() == [5] * 101
    filip = open_set(tmp_path, "zip", block, prompts="caltech101", templates="filip")
    assert len(filip.templates) == 20


def write_tfds(folder, labels, names, *, label="label"):
    """A prepared data set on disk, as TFDS would have written it."""
    place = folder / "cifar10" / "1.0.0"
    place.mkdir(parents=True)
    feature = tfds.features.ClassLabel(names=names) if names else np.int64
    tfds.features.FeaturesDict(
        {"id": tfds.features.Text(), "image": tfds.features.Image(), label: feature}
    ).save_config(str(place))
    name = "cifar10-test.array_record-00000-of-00001"
    writer = ArrayRecordWriter(str(place / name), "group_size:1")
    for number, value in enumerate(labels):
        message = tf_example_pb2.Example()
        features = message.features.feature
        features["id"].bytes_list.value.append(b"test_%d" % number)
        features["image"].bytes_list.value.append(IMAGES[number])
        features[label].int64_list.value.append(value)
        writer.write(message.SerializeToString())
    writer.close()
    split = {
        "name": "test",
        "shardLengths": [str(len(labels))],
        "numBytes": "1000",
        "filepathTemplate": "{DATASET}-{SPLIT}.{FILEFORMAT}-{SHARD_X_OF_Y}",
    }
    info = {
        "name": "cifar10",
        "version": "1.0.0",
        "fileFormat": "array_record",
        "moduleName": "tensorflow_datasets.image_classification.cifar",
        "splits": [split],
    }
    (place / "dataset_info.json").write_text(json.dumps(info))
    return evaluators.tfds_set(name="cifar10", data_dir=str(folder))


def test_tfds(tmp_path, names_file, monkeypatch):
    block = write_tfds(tmp_path / "tfds", [1, 0, 1], ["Cat", "sea_lion"])
    found = open_set(tmp_path, "tfds", block)
    assert found.class_names == ("Cat", "sea lion")
    assert pairs(found) == [
        (name, IMAGES[i]) for i, name in enumerate(("sea lion", "Cat", "sea lion"))
    ]
    assert [found.source.caption(i) for i in range(3)] == ["sea_lion", "Cat", "sea_lion"]
    assert found.source.place(2).key == "record 2"
    # The labels were kept.
    monkeypatch.setattr("nlip_jax.data.sources.tfds_labelled.TfdsLabelled._label", None)
    named = open_set(tmp_path, "tfds", block, prompts=names_file)
    assert named.class_names == ("sea lion", "cat") and named.labels.tolist() == [0, 1, 0]
    copy = pickle.loads(pickle.dumps(found.source))
    assert copy.picture(1) == IMAGES[1] and copy.fingerprint == found.source.fingerprint


def test_tfds_without_names(tmp_path, names_file):
    block = write_tfds(tmp_path / "tfds", [1, 0, 1], None)
    assert open_set(tmp_path, "tfds", block).class_names == ("0", "1")
    found = open_set(tmp_path, "tfds", block, prompts=names_file, match="order")
    assert found.class_names == ("sea lion", "cat") and found.labels.tolist() == [1, 0, 1]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"name": ""}, "name is empty"),
        ({"name": "mnist"}, "TFDS finds no data set 'mnist'"),
        ({"split": "train"}, "Unknown split 'train'"),
        ({"image_key": "picture"}, "'picture' with an image; with bytes it has id, image"),
        ({"label_key": "class"}, "no label in feature 'class'"),
    ],
)
def test_bad_tfds(tmp_path, change, words):
    block = write_tfds(tmp_path / "tfds", [1, 0], ["a", "b"])
    block.update(change)
    assert words in refused(tmp_path, "tfds", block)


def test_tfds_without_labels(tmp_path):
    """STL-10's unlabelled split has -1."""
    block = write_tfds(tmp_path / "tfds", [-1, -1], ["a", "b"])
    assert "has no label in feature 'label' (record 0: [-1])" in refused(tmp_path, "tfds", block)


@pytest.mark.parametrize(
    ("label", "words"),
    [
        ("two", "s0000001.cls is no label: a number from 0 is needed"),
        ("-1", "is no label"),
        ("1.0", "is no label"),
        ("2", "label 2 of s0000001 in "),
    ],
)
def test_bad_labels(tmp_path, label, words):
    root = tmp_path / "wds"
    block = evaluators.webdataset_set(
        root=write_webdataset(root, [(IMAGES[0], 0), (IMAGES[1], label)])
    )
    assert words in refused(tmp_path, "webdataset", block)
    # Repaired, it opens without more ado.
    if label != "2":
        write_tar(root / "test" / "0.tar", {"a.jpg": IMAGES[0], "a.cls": b"1"})
        assert open_set(tmp_path, "webdataset", block).labels.tolist() == [1]


def test_a_bad_shard_of_several_is_not_left_out(tmp_path):
    root = tmp_path / "wds"
    write_webdataset(root, [(image, 0) for image in IMAGES], shards=2)
    whole = (root / "test" / "1.tar").read_bytes()
    block = evaluators.webdataset_set(root=str(root))
    write_tar(root / "test" / "1.tar", {"a.jpg": IMAGES[0]})
    assert "1 samples have no label .cls, such as a" in refused(tmp_path, "webdataset", block)
    write_tar(root / "test" / "1.tar", {"a.cls": b"0"})
    assert "1 samples have no image, such as a" in refused(tmp_path, "webdataset", block)
    (root / "test" / "1.tar").write_bytes(whole[:1000])
    assert "is damaged" in refused(tmp_path, "webdataset", block)
    (root / "test" / "1.tar").write_bytes(whole)
    assert open_set(tmp_path, "webdataset", block).source.num_images == 6


def test_missing_files_of_a_webdataset(tmp_path):
    root = tmp_path / "wds"
    block = evaluators.webdataset_set(root=write_webdataset(root, [(IMAGES[0], 0)], shards=1))
    (root / "test" / "nshards.txt").write_text("3")
    message = refused(tmp_path, "webdataset", block)
    assert "2 of the 3 tars" in message and "1.tar: fetch them" in message
    (root / "test" / "nshards.txt").write_text("many")
    assert "holds 'many': the number of tars" in refused(tmp_path, "webdataset", block)
    block.split = "train"
    assert "train/nshards.txt cannot be read (No" in refused(tmp_path, "webdataset", block)
    block.split = "test"
    (root / "test" / "nshards.txt").write_text("1")
    (root / "classnames.txt").unlink()
    assert "classnames.txt cannot be read" in refused(tmp_path, "webdataset", block)


@pytest.mark.parametrize(
    ("kind", "block", "words"),
    [
        ("zip", {"path": ""}, "zip: path is empty"),
        ("zip", {"path": "/no/x.zip"}, "no shard matches '/no/x.zip'"),
        ("image_folder", {"root": ""}, "image_folder: root is empty"),
        ("image_folder", {"root": "/no"}, "root='/no' is no folder"),
        ("image_folder", {"root": "gs://a/b"}, "read from local disks"),
        ("webdataset", {"root": ""}, "webdataset: root is empty"),
    ],
)
def test_places_that_are_none(tmp_path, kind, block, words):
    spec = getattr(evaluators, f"{kind}_set")(**block)
    assert words in refused(tmp_path, kind, spec)


def test_empty_sets(tmp_path):
    (tmp_path / "set" / "cat").mkdir(parents=True)
    block = evaluators.image_folder_set(root=str(tmp_path / "set"))
    assert "no image" in refused(tmp_path, "image_folder", block)
    block = evaluators.image_folder_set(root=str(tmp_path / "set" / "cat"))
    assert "holds no folders" in refused(tmp_path, "image_folder", block)
    block = evaluators.zip_set(path=write_zip(tmp_path / "x.zip", {"cat.jpg": IMAGES[0]}))
    assert "no image" in refused(tmp_path, "zip", block)


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"prompts": "cifar"}, "prompts='cifar': choose one of"),
        ({"prompts": "cifar10"}, "9 class names without a folder"),
        ({"prompts": "cifar10", "match": "order"}, "the set has 2, prompts='cifar10' has 10"),
        ({"match": "guess"}, "match='guess': choose one of names, order"),
        ({"templates": "clip"}, "templates='clip' are those of prompts"),
        ({"templates": "openai"}, "templates='openai': choose one of auto, clip, filip, own"),
        ({"templates": ("a {}", "a photo")}, "template 'a photo' needs {} or {c}"),
        ({"source": "folder"}, "source='folder': choose one of class_scenes, zip, image_folder"),
    ],
)
def test_wrong_fields(tmp_path, fields, words):
    block = evaluators.image_folder_set(root=write_folders(tmp_path / "set", FOUR))
    assert words in refused(tmp_path, **({"source": "image_folder", "block": block} | fields))


def test_misspelt_and_missing_fields(tmp_path):
    with pytest.raises(ValueError, match="no such field: paths; choose of class_names, index"):
        evaluators.zip_set(paths="x.zip")
    block = evaluators.zip_set()
    block.paths = "x.zip"
    assert "no such config field" in refused(tmp_path, "zip", block)
    block = evaluators.zip_set()
    del block.index
    assert "zip lacks index: begin with its function" in refused(tmp_path, "zip", block)


def test_filip_templates_that_there_are_not(tmp_path, names_file):
    document = json.loads((tmp_path / "prompts.json").read_text())
    del document["filip_templates"]
    (tmp_path / "prompts.json").write_text(json.dumps(document))
    block = evaluators.image_folder_set(root=write_folders(tmp_path / "set", FOUR))
    message = refused(
        tmp_path, "image_folder", block, prompts=names_file, templates="filip"
    )
    assert "have no templates='filip'" in message


def test_zero_shot_of_a_config(tmp_path):
    block = evaluators.image_folder_set(root=write_folders(tmp_path / "set", FOUR))
    spec = evaluators.zero_shot("image_folder", block)
    with pytest.raises(UsageError, match=r"zero_shot\.x: the set has no templates: name prompts"):
        make_zero_shot(spec, opening(tmp_path))
    spec = evaluators.zero_shot("image_folder", block, templates=("a {}",))
    made = make_zero_shot(spec, opening(tmp_path))
    assert made.metric == "top1" and made.labelled.templates == ("a {}",)
    spec.metric = "f1"
    with pytest.raises(UsageError, match=r"x\.metric='f1': choose one of auto, top1"):
        make_zero_shot(spec, opening(tmp_path))


def test_the_index_command_knows_them(tmp_path):
    """Nested ones, too; an index made by it is the one that is opened."""
    config = base.get_config()
    wds = write_webdataset(tmp_path / "wds", [(IMAGES[0], 0), (IMAGES[1], 1)])
    config.evaluators.zero_shot = ConfigDict()
    config.evaluators.zero_shot.x = evaluators.labelled_set(
        "image_folder", evaluators.image_folder_set(root=write_folders(tmp_path / "set", FOUR))
    )
    config.evaluators.linear_probe = ConfigDict(
        {"x": {"train": evaluators.labelled_set("webdataset", evaluators.webdataset_set(root=wds))}}
    )
    sets = indexed_sets(config, tmp_path / "run")
    assert {folder.name for folder in sets} == {"zero_shot-x", "linear_probe-x-train"}
    assert {spec.format.name for spec in sets.values()} == {"image_folder", "webdataset"}
    for folder, spec in sets.items():
        update_index(spec.shards, spec.format, folder, storage=spec.storage)
    found = open_labelled(config.evaluators.zero_shot.x, opening(tmp_path))
    assert found.source.num_images == 4
    nested = Opening(
        field="evaluators.linear_probe.x",
        workdir=tmp_path / "run",
        storage=Storage(),
        similarity="dot",
    )
    found = open_labelled(config.evaluators.linear_probe.x.train, nested.part("train"))
    assert found.source.num_images == 2
