"""Random access to the images and captions of tar shards."""

import json
import os
import pickle
import random
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from tars import encode, pixels, read_tar, sample, write_tar

from nlip_jax.data.decode import ReadError
from nlip_jax.data.index import build_index
from nlip_jax.data.shards import expand_shards
from nlip_jax.data.tar_source import TarSource
from nlip_jax.errors import RunError, UsageError

KEY = "json:captions"
CAPTIONS = [[f"{i} {j}" for j in range(1 + i % 3)] for i in range(24)]


@pytest.fixture(scope="module")
def shards(tmp_path_factory):
    """Six shards of four images with one to three captions, some blank ones among them."""
    folder = tmp_path_factory.mktemp("shards")
    paths = []
    for number in range(6):
        members = {}
        for i in range(4 * number, 4 * number + 4):
            members |= sample(f"{i:09d}", ["", *CAPTIONS[i], "  "], seed=i)
        paths.append(write_tar(folder / f"{number:05d}.tar", members))
    return paths


@pytest.fixture(scope="module")
def index(shards, tmp_path_factory):
    return build_index(shards, KEY, tmp_path_factory.mktemp("index"))


def test_expand(index, shards):
    source = TarSource(index)
    pairs = [(i, text) for i, texts in enumerate(CAPTIONS) for text in texts]
    assert len(source) == len(pairs) == 48 and source.num_images == 24
    files = {name: data for path in shards for name, data in read_tar(path).items()}
    for example_id in random.Random(0).sample(range(48), 48):
        image_id, text = pairs[example_id]
        assert source.image_id(example_id) == image_id
        assert source.caption(example_id) == source.caption(example_id, epoch=3) == text
        assert source.image_bytes(image_id) == files[f"{image_id:09d}.jpg"]
    image = source.image(7)
    assert image.dtype == np.uint8 and image.shape == (24, 32, 3)
    assert np.abs(image.astype(int) - pixels(7)).mean() < 5
    assert source.truth() is None
    for wrong in (-1, 48):
        with pytest.raises(IndexError):
            source.image_id(wrong)


def test_sample(index):
    source = TarSource(index, captions="sample", seed=1)
    assert len(source) == source.num_images == 24 and source.image_id(9) == 9
    drawn = [[source.caption(i, epoch) for epoch in range(40)] for i in range(24)]
    assert drawn == [[source.caption(i, epoch) for epoch in range(40)] for i in range(24)]
    assert [sorted(set(texts)) for texts in drawn] == CAPTIONS
    other = TarSource(index, captions="sample", seed=2)
    assert drawn != [[other.caption(i, epoch) for epoch in range(40)] for i in range(24)]


def test_fingerprints(index):
    made = [("expand", 0), ("sample", 0), ("sample", 1)]
    assert len({TarSource(index, captions=c, seed=s).fingerprint for c, s in made}) == 3
    assert TarSource(index, seed=0).fingerprint == TarSource(index, seed=1).fingerprint
    with pytest.raises(UsageError, match="captions='all': must be one of expand, sample"):
        TarSource(index, captions="all")


def test_pickling(index):
    source = TarSource(index, captions="sample", seed=3)
    source.image(0)
    data = pickle.dumps(source)
    assert len(data) < 1000
    copy = pickle.loads(data)
    assert copy.fingerprint == source.fingerprint and copy.caption(5, 2) == source.caption(5, 2)
    np.testing.assert_array_equal(copy.image(5), source.image(5))


def test_pickle_of_a_replaced_index(index, shards, tmp_path):
    data = pickle.dumps(TarSource(build_index(shards, KEY, tmp_path / "index")))
    build_index(shards[:2], KEY, tmp_path / "index")
    with pytest.raises(UsageError, match="replaced"):
        pickle.loads(data)


def test_threads_share_few_descriptors(index):
    source = TarSource(index, open_files=2)
    expected = [source.image_bytes(i) for i in range(24)]
    ids = random.Random(0).choices(range(24), k=2000)
    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(source.image_bytes, ids)) == [expected[i] for i in ids]


def test_descriptors_are_bounded_and_returned(index):
    before = len(os.listdir("/dev/fd"))
    source = TarSource(index, open_files=2)
    for i in range(24):
        source.image_bytes(i)
    assert len(os.listdir("/dev/fd")) == before + 2
    del source
    assert len(os.listdir("/dev/fd")) == before


def test_undecodable_image(tmp_path):
    members = sample("00007", ["x"]) | {"00007.jpg": encode(pixels(0))[:300]}
    path = write_tar(tmp_path / "bad.tar", members)
    source = TarSource(build_index([path], KEY, tmp_path / "index"))
    assert source.caption(0) == "x"
    with pytest.raises(ReadError, match=r"image 0 .*: 00007.jpg in shard .*bad.tar at byte 512"):
        source.image(0)
    assert issubclass(ReadError, RunError)


def test_shard_changes_after_the_check(tmp_path):
    path = write_tar(tmp_path / "one.tar", sample("0", ["x"]))
    index = build_index([path], KEY, tmp_path / "index")
    source = TarSource(index)
    source.image(0)
    os.truncate(path, 700)  # while it is open
    with pytest.raises(ReadError, match=r"bytes are missing: 0.jpg in shard .*one.tar"):
        source.image(0)
    with pytest.raises(UsageError, match=r"one.tar changed .*-> 700"):
        TarSource(index).image(0)
    os.unlink(path)
    with pytest.raises(ReadError, match=r"one.tar cannot be opened"):
        TarSource(index).image(0)


def test_flickr8k(shared, tmp_path):
    folder = shared / "data/flickr8k/val"
    index = build_index(expand_shards(str(folder / "*.tar")), KEY, tmp_path / "index")
    source = TarSource(index)
    files = read_tar(folder / "00000.tar")
    keys = [name.removesuffix(".jpg") for name in files if name.endswith(".jpg")]
    assert len(source) == 5 * len(keys) == 5000
    for example_id in random.Random(0).sample(range(5000), 200):
        image_id, which = divmod(example_id, 5)
        record = json.loads(files[f"{keys[image_id]}.json"])
        assert source.image_id(example_id) == image_id
        assert source.caption(example_id) == record["captions"][which]
        assert source.image_bytes(image_id) == files[f"{keys[image_id]}.jpg"]
    assert source.image(0).shape == (128, 128, 3)


def test_coco_mini_agrees_with_its_list(shared, tmp_path):
    folder = shared / "data/coco_mini"
    index = build_index(expand_shards(str(folder / "train/*.tar")), KEY, tmp_path / "index")
    source = TarSource(index)
    records = json.loads((folder / "captions.json").read_text())["images"]
    listed = [
        caption.strip()
        for record in records
        if record["split"] == "train"
        for caption in record["captions"]
    ]
    assert [source.caption(i) for i in range(len(source))] == listed
    assert all(source.image(i).shape[2] == 3 for i in range(source.num_images))
