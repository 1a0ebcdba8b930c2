"""The list of all examples: captions and names as the source has them, in parts of any order."""

import json

import numpy as np
import pyarrow as pa
import pytest
import tars

from nlip_jax.data import listing as listings
from nlip_jax.data.duplicates.signatures import signatures, text_numbers
from nlip_jax.data.duplicates.words import words_of
from nlip_jax.data.failures import ReadError
from nlip_jax.data.formats.tar import TarFormat
from nlip_jax.data.index.update import update_index
from nlip_jax.data.listing import Listing, ListPart
from nlip_jax.data.members import Ranges
from nlip_jax.data.source import SourceView
from nlip_jax.data.sources.indexed import IndexedSource
from nlip_jax.data.sources.mixture import Mixture
from nlip_jax.data.sources.planted import FirstImages, PlantedMismatch
from nlip_jax.data.storage import Storage
from nlip_jax.data.synthetic import SyntheticScenes

UIDS = [f"{i:032x}" for i in (7, 2**127 + 5, 12)]


class Spoilt(SourceView):
    """A source whose fourth caption cannot be read."""

    def caption(self, example_id, epoch=0):
        if example_id == 3:
            raise ReadError("unreadable_caption", "gone")
        return "half a pair \ud83d" if example_id == 4 else self.source.caption(example_id, epoch)


@pytest.fixture
def scenes():
    return SyntheticScenes(num_examples=23, split="train", seed=0, image_size=8)


@pytest.fixture
def shards(tmp_path):
    """Two tars; uids in some of the samples, before and behind their images."""
    first = {}
    for i in range(3):
        members = tars.sample(f"a/{i:03d}", [f"caption {i}", f"another {i}"], seed=i)
        record = json.loads(members[f"a/{i:03d}.json"]) | {"uid": UIDS[i]}
        members[f"a/{i:03d}.json"] = json.dumps(record).encode()
        first |= members if i else dict(reversed(members.items()))
    second = tars.sample("b", ["only one"], seed=9)
    second["b.json"] = json.dumps({"uid": 7, "captions": ["only one"]}).encode()
    return [
        tars.write_tar(tmp_path / "0.tar", first),
        tars.write_tar(tmp_path / "1.tar", second),
    ]


def open_tars(shards, tmp_path) -> IndexedSource:
    format, storage = TarFormat(caption_keys=("json:captions",)), Storage()
    index = update_index(shards, format, tmp_path / "index", storage=storage).index
    return IndexedSource(index, format, storage=storage)


def list_all(source, folder, *, members=None, parts=None) -> Listing:
    folder.mkdir()
    listing = Listing(folder, len(source))
    work = ListPart(listing, source, members or Ranges(len(source), source.holes))
    for part in range(listing.num_parts) if parts is None else parts:
        work(part, lambda count: None)
    return listing


def column(listing, name) -> list:
    return [value for table in listing.columns(name) for value in table[name].to_pylist()]


def test_what_is_listed_is_what_the_source_says(scenes, tmp_path, monkeypatch):
    monkeypatch.setattr(listings, "PART", 10)
    monkeypatch.setattr(listings, "_BLOCK", 4)
    listing = list_all(scenes, tmp_path / "l", parts=[2, 0, 1])
    captions = [scenes.caption(i) for i in range(23)]
    assert listing.finished() == [0, 1, 2] and listing.num_listed() == 23
    assert listing.ids().tolist() == list(range(23)) and column(listing, "caption") == captions
    assert column(listing, "key") == [scenes.place(i).key for i in range(23)]
    assert set(column(listing, "shard")) == {scenes.place(0).shard}
    assert set(column(listing, "uid")) == {""}
    words = words_of(pa.array(captions))
    assert (np.concatenate(list(listing.signatures())) == signatures(words)).all()
    assert column(listing, "text_number") == text_numbers(words).tolist()


def test_members_and_unreadable_captions(scenes, tmp_path):
    holes = np.array([[5, 9]])
    listing = list_all(Spoilt(scenes), tmp_path / "l", members=Ranges(23, holes))
    assert listing.ids().tolist() == [*range(5), *range(9, 23)]
    captions = column(listing, "caption")
    assert captions[3] is None and captions[4] == "half a pair ?"
    assert captions[2] == scenes.caption(2) and captions[5] == scenes.caption(9)
    assert sum(map(len, listing.signatures())) == 19
    assert not list((tmp_path / "l").glob("*.tmp"))


def test_half_a_list_is_read_as_far_as_it_goes(scenes, tmp_path, monkeypatch):
    monkeypatch.setattr(listings, "PART", 10)
    listing = list_all(scenes, tmp_path / "l", parts=[1])
    assert listing.finished() == [1] and listing.ids().tolist() == list(range(10, 20))
    assert Listing(tmp_path / "none", 5).ids().tolist() == []


def test_tars_tell_keys_and_uids(shards, tmp_path):
    source = open_tars(shards, tmp_path)
    listing = list_all(source, tmp_path / "l")
    assert column(listing, "key") == ["a/000", "a/000", "a/001", "a/001", "a/002", "a/002", "b"]
    assert column(listing, "uid") == [uid for uid in UIDS for _ in range(2)] + [""]
    assert column(listing, "shard") == [shards[0]] * 6 + [shards[1]]
    images = np.arange(source.num_images)
    names = source.sample_names(images)
    assert [name.key for name in names] == [source.place(i).key for i in images]


def test_a_shard_that_is_gone_leaves_numbers_for_names(shards, tmp_path):
    source = open_tars(shards, tmp_path)
    (tmp_path / "0.tar").unlink()
    assert [name.key for name in source.sample_names(np.arange(4))] == [
        *(f"image {i}" for i in range(3)),
        "b",
    ]
    listing = list_all(source, tmp_path / "l")
    assert column(listing, "caption") == [None] * 6 + ["only one"]


@pytest.mark.parametrize("view", ["planted", "first", "mixture"])
def test_views_pass_names_on(view, shards, scenes, tmp_path):
    source = open_tars(shards, tmp_path)
    if view == "planted":
        shown, extra = PlantedMismatch(source, 0.6), []
    elif view == "first":
        shown, extra = FirstImages(source, 4), []
    else:
        shown = Mixture({"tars": (source, 1.0), "scenes": (scenes, 1.0)})
        extra = [scenes.place(i).key for i in range(23)]
    listing = list_all(shown, tmp_path / "l")
    assert column(listing, "uid")[:7] == [uid for uid in UIDS for _ in range(2)] + [""]
    assert column(listing, "key")[7:] == extra
    assert column(listing, "caption") == [shown.caption(i) for i in range(len(shown))]
