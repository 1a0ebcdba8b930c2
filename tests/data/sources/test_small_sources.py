"""Sources for evaluation: images by their paths, captions in prompts, first captions alone."""

import os
import pickle

import numpy as np
import pytest
from tars import encode, pixels

from nlip_jax.data.failures import ReadError
from nlip_jax.data.formats.folder import FolderFormat
from nlip_jax.data.index.update import update_index
from nlip_jax.data.source import image_ids
from nlip_jax.data.sources.first_captions import FirstCaptions
from nlip_jax.data.sources.image_files import ImageFiles
from nlip_jax.data.sources.indexed import IndexedSource
from nlip_jax.data.sources.planted import FirstImages
from nlip_jax.data.sources.prompted import Prompt, Prompted
from nlip_jax.data.storage import Storage
from nlip_jax.errors import UsageError

A, B = encode(pixels(0)), encode(pixels(1))
CAPTIONS, OWNERS = ("a1", "a2", "b1"), (0, 0, 1)


@pytest.fixture
def files(tmp_path):
    (tmp_path / "a.jpg").write_bytes(A)
    (tmp_path / "b.jpg").write_bytes(B)
    return [str(tmp_path / "a.jpg"), str(tmp_path / "b.jpg")]


def made(files, captions=CAPTIONS, owners=OWNERS):
    return ImageFiles(
        files, storage=Storage(), captions=captions, owners=owners, named_in="list.json"
    )


def test_images_by_their_paths(files):
    source = pickle.loads(pickle.dumps(made(files)))
    assert (len(source), source.num_images) == (3, 2)
    assert [source.caption(i) for i in range(3)] == list(CAPTIONS)
    assert [source.image_id(i) for i in range(3)] == list(OWNERS)
    assert image_ids(source, np.array([2, 0])).tolist() == [1, 0]
    assert [source.picture(i) for i in range(2)] == [A, B]
    assert source.place(1).key == files[1]
    assert source.truth() is None


def test_its_fingerprint_covers_files_and_captions(files):
    others = made(files[::-1]), made(files, ("a1", "a2", "b2")), made(files, owners=(0, 1, 1))
    prints = {source.fingerprint for source in (made(files), *others)}
    assert made(files).fingerprint in prints
    os.utime(files[0], (1, 1))
    prints.add(made(files).fingerprint)
    assert len(prints) == 5


def test_images_that_are_not_there(files):
    with pytest.raises(UsageError, match=r"1 of 2 images that list\.json names are not there, .*b"):
        os.remove(files[1])
        made(files)


def test_an_image_that_goes_later_cannot_be_read(files):
    source = made(files)
    os.remove(files[1])
    with pytest.raises(ReadError, match="cannot be read"):
        source.picture(1)


def test_captions_in_prompts(files):
    source = Prompted(made(files), Prompt(prefix="a photo of", suffix="I like it."))
    assert source.caption(2) == "a photo of b1 I like it."
    assert source.fingerprint != made(files).fingerprint
    assert image_ids(source, np.arange(3)).tolist() == list(OWNERS)


def test_first_captions(files):
    source = FirstCaptions(made(files, ("b1", "a1", "b2"), (1, 0, 1)))
    assert [source.caption(i) for i in range(len(source))] == ["a1", "b1"]
    assert [source.image_id(i) for i in range(2)] == image_ids(source, np.arange(2)).tolist()
    assert source.images.tolist() == [0, 1]


def test_images_of_many_examples_at_once(files, tmp_path):
    path = tmp_path / "captions.txt"
    path.write_text("a.jpg#0\ta1\na.jpg#1\ta2\nb.jpg#0\tb1\n")
    index = update_index([str(path)], FolderFormat(), tmp_path / "index", storage=Storage()).index
    for mode, owners in (("expand", [0, 0, 1]), ("sample", [0, 1])):
        source = IndexedSource(index, FolderFormat(), storage=Storage(), captions=mode)
        assert image_ids(source, np.arange(len(source))).tolist() == owners
        for bad in (-1, len(source)):
            with pytest.raises(IndexError, match=f"example {bad} of"):
                image_ids(source, np.array([0, bad]))
        assert image_ids(source, np.arange(0)).tolist() == []
    first = FirstImages(IndexedSource(index, FolderFormat(), storage=Storage()), 1)
    assert image_ids(first, np.arange(len(first))).tolist() == [0, 0]
