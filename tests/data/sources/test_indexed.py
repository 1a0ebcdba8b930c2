"""Random access to the images and captions of indexed shards."""

import json
import os
import pickle
import random
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from tars import encode, pixels, read_tar, sample, write_tar

from nlip_jax.data.failures import ReadError
from nlip_jax.data.formats.table import TableFormat
from nlip_jax.data.formats.tar import TarFormat
from nlip_jax.data.index.shards import expand_shards
from nlip_jax.data.index.update import update_index
from nlip_jax.data.source import Place
from nlip_jax.data.sources.indexed import IndexedSource
from nlip_jax.data.storage import Storage
from nlip_jax.errors import UsageError

FORMAT = TarFormat(("json:captions",))
STORAGE = Storage()
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


def update(shards, directory, format=FORMAT):
    return update_index(shards, format, directory, storage=STORAGE).index


@pytest.fixture(scope="module")
def index(shards, tmp_path_factory):
    return update(shards, tmp_path_factory.mktemp("index"))


def open_source(index, format=FORMAT, **options):
    return IndexedSource(index, format, storage=STORAGE, **options)


def fails(kind, read, *arguments, match=None):
    with pytest.raises(ReadError, match=match) as error:
        read(*arguments)
    assert error.value.kind == kind


def test_expand(index, shards):
    source = open_source(index)
    pairs = [(i, text) for i, texts in enumerate(CAPTIONS) for text in texts]
    assert len(source) == len(pairs) == 48 and source.num_images == 24
    assert not source.draws_captions and source.truth() is None and source.holes.shape == (0, 2)
    files = {name: data for path in shards for name, data in read_tar(path).items()}
    for example_id in random.Random(0).sample(range(48), 48):
        image_id, text = pairs[example_id]
        assert source.image_id(example_id) == image_id
        assert source.caption(example_id) == source.caption(example_id, epoch=3) == text
        assert source.picture(image_id) == files[f"{image_id:09d}.jpg"]
        assert source.place(image_id) == Place(shards[image_id // 4], f"{image_id:09d}")
    for wrong in (-1, 48):
        with pytest.raises(IndexError):
            source.image_id(wrong)


def test_sample(index):
    source = open_source(index, captions="sample", seed=1)
    assert len(source) == source.num_images == 24 and source.image_id(9) == 9
    drawn = [[source.caption(i, epoch) for epoch in range(40)] for i in range(24)]
    assert drawn == [[source.caption(i, epoch) for epoch in range(40)] for i in range(24)]
    assert [sorted(set(texts)) for texts in drawn] == CAPTIONS
    other = open_source(index, captions="sample", seed=2)
    assert drawn != [[other.caption(i, epoch) for epoch in range(40)] for i in range(24)]


@pytest.fixture(scope="module")
def three_keys(tmp_path_factory):
    """Images with captions of three keys, of two, of the last alone."""
    image = encode(pixels(0))
    members = {
        "a.jpg": image,
        "a.txt": b"text",
        "a.json": b'{"alt": ["alt 0", "alt 1"], "title": "title"}',
        "b.jpg": image,
        "b.txt": b"text",
        "b.json": b'{"title": "title"}',
        "c.jpg": image,
        "c.json": b'{"alt": "", "title": "title"}',
    }
    tar = TarFormat(("txt", "json:alt", "json:title"))
    folder = tmp_path_factory.mktemp("keys")
    return update([write_tar(folder / "0.tar", members)], folder / "index", tar), tar


def test_probabilities(three_keys):
    index, tar = three_keys
    source = open_source(index, tar, captions="sample", probabilities=(1, 2, 5), seed=3)

    def shares(image_id, n=4000):
        texts = [source.caption(image_id, epoch) for epoch in range(n)]
        return {text: texts.count(text) / n for text in sorted(set(texts))}

    expected = {"text": 1 / 8, "alt 0": 1 / 8, "alt 1": 1 / 8, "title": 5 / 8}
    assert shares(0) == pytest.approx(expected, abs=0.03)
    assert shares(1) == pytest.approx({"text": 1 / 6, "title": 5 / 6}, abs=0.03)
    assert shares(2, 10) == {"title": 1}
    first = open_source(index, tar, captions="sample")
    assert [{first.caption(i, e) for e in range(20)} for i in range(3)] == [
        {"text"}, {"text"}, {"title"}
    ]  # fmt: skip
    copy = pickle.loads(pickle.dumps(source))
    assert [copy.caption(0, e) for e in range(50)] == [source.caption(0, e) for e in range(50)]


def test_refuses_probabilities(three_keys):
    index, tar = three_keys
    refusals = {(1, 2): "each of the 3", (1, 0, 2): "above 0", (1, -1, 2): "above 0"}
    for wrong, message in refusals.items():
        with pytest.raises(UsageError, match=message):
            open_source(index, tar, captions="sample", probabilities=wrong)
    with pytest.raises(UsageError, match="finite"):
        open_source(index, tar, captions="sample", probabilities=(1, 2, float("inf")))
    with pytest.raises(UsageError, match="only captions='sample' draws"):
        open_source(index, tar, probabilities=(1, 2, 3))
    with pytest.raises(UsageError, match="captions='all': must be one of expand, sample"):
        open_source(index, tar, captions="all")
    with pytest.raises(UsageError, match=r"is for tar .* asked for is tar"):
        open_source(index)


def test_fingerprints(three_keys):
    index, tar = three_keys
    options = [
        {},
        {"captions": "sample"},
        {"captions": "sample", "seed": 1},
        {"captions": "sample", "probabilities": (1, 1, 1)},
        {"captions": "sample", "probabilities": (1, 1, 2)},
    ]
    sources = [open_source(index, tar, **some) for some in options]
    assert len({source.fingerprint for source in sources}) == 5
    assert sources[0].fingerprint == open_source(index, tar, seed=1).fingerprint
    # How captions are drawn does not change what an id means.
    assert len({source.numberings for source in sources}) == 2
    assert [source.numberings[-1].length for source in sources] == [3] * 5


def test_numberings_and_holes_in_both_modes(shards, tmp_path):
    small = update(shards[:3], tmp_path / "index")
    before = {mode: open_source(small, captions=mode) for mode in ("expand", "sample")}
    index = update([shards[0], *shards[3:5]], tmp_path / "index")
    for mode, holes, lengths in (
        ("expand", [[7, 24]], [7, 15, 24, 31, 39]),
        ("sample", [[4, 12]], [4, 8, 12, 16, 20]),
    ):
        source = open_source(index, captions=mode)
        assert source.holes.tolist() == holes and len(source) == lengths[-1]
        assert [numbering.length for numbering in source.numberings] == lengths
        assert source.numberings[:3] == before[mode].numberings
        assert all(n.length == len(before[mode]) for n in before[mode].numberings[-1:])
        fails("shard_unreadable", source.picture, 5, match="hole")
        fails("shard_unreadable", source.caption, holes[0][0], match="hole")
        assert source.place(5) == Place(shards[1], "image 1")
        assert source.picture(12) == read_tar(shards[3])["000000012.jpg"]


def test_pickling(index):
    source = open_source(index, captions="sample", seed=3, open_files=2)
    source.picture(0)
    data = pickle.dumps(source)
    assert len(data) < 2000
    copy = pickle.loads(data)
    assert copy.fingerprint == source.fingerprint and copy.caption(5, 2) == source.caption(5, 2)
    assert copy.picture(5) == source.picture(5) and copy.open_files == 2


def test_threads_share_few_descriptors(index):
    source = open_source(index, open_files=2)
    expected = [source.picture(i) for i in range(24)]
    ids = random.Random(0).choices(range(24), k=2000)
    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(source.picture, ids)) == [expected[i] for i in ids]


def test_descriptors_are_bounded_and_returned(index):
    before = len(os.listdir("/dev/fd"))
    source = open_source(index, open_files=2)
    for i in range(24):
        source.picture(i)
    assert len(os.listdir("/dev/fd")) == before + 2
    del source
    assert len(os.listdir("/dev/fd")) == before


def test_a_shard_that_changes_after_the_check(tmp_path):
    path = write_tar(tmp_path / "one.tar", sample("0", ["x", "y"]))
    index = update([path], tmp_path / "index")
    source = open_source(index)
    data = source.picture(0)
    with open(path, "r+b") as file:  # while it is open
        whole = file.read()
        file.seek(whole.index(b'["x", "y"]'))
        file.write(b'["x, y"]  ')
    fails("unreadable_caption", source.caption, 1, match="1 captions, 2 were indexed")
    assert source.picture(0) == data
    os.truncate(path, 700)
    fails("missing_bytes", source.picture, 0, match="bytes are missing")
    fails("missing_bytes", source.caption, 0)
    assert source.place(0) == Place(path, "0")
    late = open_source(index)
    fails("shard_unreadable", late.picture, 0, match="changed since it was indexed: size .* -> 700")
    assert late.place(0) == Place(path, "image 0")
    os.unlink(path)
    fails("shard_unreadable", late.caption, 0, match="No such file")


def test_an_image_that_is_empty_by_now(tmp_path):
    (tmp_path / "a.jpg").write_bytes(encode(pixels(0)))
    (tmp_path / "list.tsv").write_text("filepath\ttitle\na.jpg\tone\na.jpg\ttwo\n")
    table = TableFormat()
    index = update([str(tmp_path / "list.tsv")], tmp_path / "index", table)
    source = open_source(index, table)
    assert [source.caption(i) for i in range(2)] == ["one", "two"] and source.num_images == 1
    assert source.picture(0) == encode(pixels(0))
    (tmp_path / "a.jpg").write_bytes(b"")
    fails("empty_image", source.picture, 0)
    os.unlink(tmp_path / "a.jpg")
    fails("missing_image", source.picture, 0)
    assert source.place(0) == Place(str(tmp_path / "list.tsv"), "a.jpg")


def test_flickr8k(shared, tmp_path):
    folder = shared / "data/flickr8k/val"
    index = update(expand_shards(str(folder / "*.tar"), storage=STORAGE), tmp_path / "index")
    source = open_source(index)
    files = read_tar(folder / "00000.tar")
    keys = [name.removesuffix(".jpg") for name in files if name.endswith(".jpg")]
    assert len(source) == 5 * len(keys) == 5000
    for example_id in random.Random(0).sample(range(5000), 200):
        image_id, which = divmod(example_id, 5)
        record = json.loads(files[f"{keys[image_id]}.json"])
        assert source.image_id(example_id) == image_id
        assert source.caption(example_id) == record["captions"][which]
        assert source.picture(image_id) == files[f"{keys[image_id]}.jpg"]
        assert source.place(image_id).key == keys[image_id]


def test_coco_mini_agrees_with_its_list(shared, tmp_path):
    folder = shared / "data/coco_mini"
    index = update(expand_shards(str(folder / "*/*.tar"), storage=STORAGE), tmp_path / "index")
    source = open_source(index)
    records = json.loads((folder / "captions.json").read_text())["images"]
    listed = [
        caption.strip()
        for split in ("train", "val")
        for record in records
        if record["split"] == split
        for caption in record["captions"]
    ]
    assert [source.caption(i) for i in range(len(source))] == listed
    sizes = np.array([len(source.picture(i)) for i in range(source.num_images)])
    np.testing.assert_array_equal(sizes, index.rows["image_length"])
