"""An opened index."""

import json
import os
import pickle
import subprocess
import sys

import numpy as np
import pytest
from tars import sample, write_tar

from nlip_jax.data.formats.tar import TarFormat
from nlip_jax.data.index.index import Index
from nlip_jax.data.index.layout import META, ROWS, STARTS
from nlip_jax.data.index.shards import expand_shards
from nlip_jax.data.index.update import update_index
from nlip_jax.data.storage import Storage
from nlip_jax.errors import RunError, UsageError

FORMAT = TarFormat(("json:captions",))
STORAGE = Storage()


@pytest.fixture
def shards(tmp_path):
    """Two shards with 3 + 2 images and 2 + 1 + 3, 1 + 2 captions."""
    folder = tmp_path / "shards"
    folder.mkdir()
    lists = [[["a", "b"], ["c"], ["d", "e", "f"]], [["g"], ["h", "i"]]]
    paths = []
    for number, captions in enumerate(lists):
        members = {}
        for i, texts in enumerate(captions):
            members |= sample(f"{number:05d}{i:04d}", texts, seed=10 * number + i)
        paths.append(write_tar(folder / f"{number:05d}.tar", members))
    return paths


def update(shards, directory):
    return update_index(shards, FORMAT, directory, storage=STORAGE).index


def refused(*words):
    """A UsageError of one line that has all these words."""
    return pytest.raises(UsageError, match="".join(f"(?=.*{word})" for word in words) + r"[^\n]*$")


def test_is_small_and_mapped(tmp_path):
    samples = [sample(f"{i:09d}", ["x"], seed=0) for i in range(200)]
    members = {name: data for members in samples for name, data in members.items()}
    path = write_tar(tmp_path / "one.tar", members)
    both = TarFormat(("json:captions", "txt"))
    index = update_index([path], both, tmp_path / "index", storage=STORAGE).index
    assert sum(os.path.getsize(tmp_path / "index" / name) for name in (ROWS, STARTS)) <= 32 * 201
    for array in (index.rows, index.caption_starts):
        assert isinstance(array.base, np.memmap) and not array.flags.writeable


def test_open_refuses(shards, tmp_path):
    with refused("holds no index", "python -m nlip_jax index"):
        Index.open(tmp_path, storage=STORAGE)
    update(shards, tmp_path / "index")
    meta = tmp_path / "index" / META
    text = meta.read_text()
    content = json.loads(text)
    for broken in (
        text[:20],
        "{}",
        "[]",
        json.dumps({**content, "version": 99}),
        json.dumps({**content, "shards": [[1]]}),
        json.dumps({**content, "row": "[('x'"}),
    ):
        meta.write_text(broken)
        with refused("cannot be used", "remove it", "again"):
            Index.open(tmp_path / "index", storage=STORAGE)
    meta.write_text(text)
    for name in (ROWS, STARTS):
        size = os.path.getsize(tmp_path / "index" / name)
        os.truncate(tmp_path / "index" / name, size - 1)
        with refused("cannot be used", "again"):
            Index.open(tmp_path / "index", storage=STORAGE)
        os.truncate(tmp_path / "index" / name, size)
    assert len(Index.open(tmp_path / "index", storage=STORAGE).rows) == 5


def test_check_of_what_is_asked_for(shards, tmp_path):
    index = update(shards, tmp_path / "index")
    index.check()
    index.check(shards=[os.path.relpath(path) for path in shards[::-1]], format=FORMAT)
    with refused(r"is for tar \(caption_keys=\['json:captions'\]\)", r"\['txt'\]", "again"):
        index.check(format=TarFormat())
    with refused("has 2 shards", "asked for are 1", "1 of it .* such as .*00001.tar", "again"):
        index.check(shards=shards[:1])
    with refused("asked for are 3", "1 are not in it, such as .*new.tar", "again", "another dir"):
        index.check(shards=[*shards, str(tmp_path / "new.tar")])


def test_check_of_the_shards(shards, tmp_path):
    index = update(shards, tmp_path / "index")
    size = os.path.getsize(shards[0])
    os.utime(shards[0], ns=(1, 1))
    with refused("00000.tar changed", "modification time", "again"):
        index.check()
    with open(shards[0], "ab") as file:
        file.write(bytes(512))
    with refused("00000.tar changed", f"size {size} -> {size + 512}", "again"):
        index.check()
    os.unlink(shards[0])
    with refused("00000.tar is not there any more", "bring it back", "again", "hole"):
        index.check()
    less = update(shards[1:], tmp_path / "index")
    less.check(shards=shards[1:])


def test_check_when_a_store_does_not_answer(shards, tmp_path):
    class Silent(Storage):
        def statuses(self, paths):
            raise OSError("timed out")

    update(shards, tmp_path / "index")
    with pytest.raises(RunError, match=r"cannot be looked at \(timed out\): try again"):
        Index.open(tmp_path / "index", storage=Silent()).check()
    with pytest.raises(RunError, match=r"cannot be looked at \(timed out\): try again"):
        update_index(shards, FORMAT, tmp_path / "index", storage=Silent())


def test_check_tells_of_unreadable_shards(shards, tmp_path, caplog):
    bad = tmp_path / "shards" / "bad.tar"
    bad.write_bytes(b"")
    update([*shards, str(bad)], tmp_path / "index").check(shards=[*shards, str(bad)])
    assert "1 shards were unreadable" in caplog.text and "bad.tar" in caplog.text


def test_travels_as_its_place_and_stays_what_it_was(shards, tmp_path):
    index = update(shards[:1], tmp_path / "index")
    data = pickle.dumps(index)
    assert len(data) < 1000
    update(shards[1:], tmp_path / "index")  # the first is a hole now
    copy = pickle.loads(data)
    assert copy.fingerprint == index.fingerprint and copy.fingerprints == index.fingerprints
    assert len(copy.rows) == len(index.rows) == 3 and len(copy.holes(copy.first_images)) == 0
    np.testing.assert_array_equal(copy.caption_starts, index.caption_starts)
    with_hole = pickle.loads(pickle.dumps(Index.open(tmp_path / "index", storage=STORAGE)))
    assert with_hole.holes(with_hole.first_images).tolist() == [[0, 3]] and len(with_hole.rows) == 5
    for name in (META, ROWS, STARTS):
        os.unlink(tmp_path / "index" / name)
    update(shards[1:], tmp_path / "index")
    with refused("was replaced while in use"):
        pickle.loads(data)


def test_flickr8k(shared, tmp_path):
    pattern = str(shared / "data/flickr8k/train/{00000..00005}.tar")
    index = update(expand_shards(pattern, storage=STORAGE), tmp_path / "index")
    found = {name: count for name, count in index.counts.items() if count}
    assert found == {"images": 6000, "captions": 30000, "other": 6000}
    assert (np.diff(index.caption_starts) == 5).all()


def test_data_imports_without_jax():
    modules = "index.update, nlip_jax.data.sources.indexed, nlip_jax.data.sources.planted"
    code = (
        f"import sys; import nlip_jax.data.{modules}, nlip_jax.data.formats.tar; "
        "sys.exit(bool({'jax', 'flax', 'grain', 'fsspec', 'pyarrow'} & sys.modules.keys()))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
