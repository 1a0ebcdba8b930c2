"""Making an index and bringing it up to date: what an id means never changes."""

import gzip
import json
import os
import shutil
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from tars import sample, write_tar

from nlip_jax.data.formats.tar import TarFormat
from nlip_jax.data.index import update as update_module
from nlip_jax.data.index.index import Index
from nlip_jax.data.index.layout import META, ROWS, STARTS, is_index
from nlip_jax.data.index.update import update_index
from nlip_jax.data.sources.indexed import IndexedSource
from nlip_jax.data.storage import Storage
from nlip_jax.errors import RunError, UsageError

FORMAT = TarFormat(("json:captions",))
STORAGE = Storage()


@pytest.fixture
def shards(tmp_path):
    """Five shards of two images with 1 + number and one caption."""
    return [make(tmp_path / "shards", number) for number in range(5)]


def make(folder, number, word="caption"):
    folder.mkdir(exist_ok=True)
    members = sample(f"{number:03d}0", [f"{word} {number} {j}" for j in range(number + 1)])
    members |= sample(f"{number:03d}1", [f"{word} of {number}"], seed=1)
    return write_tar(folder / f"{number:05d}.tar", members)


def update(shards, directory, *, format=FORMAT, **options):
    return update_index(shards, format, directory, storage=STORAGE, **options)


def refused(*words):
    """A UsageError of one line that has all these words."""
    return pytest.raises(UsageError, match="".join(f"(?=.*{word})" for word in words) + r"[^\n]*$")


def gone(index):
    """Ranges of images in holes."""
    return index.holes(index.first_images).tolist()


def captions(index):
    """Caption of every example; None in a hole."""
    source = IndexedSource(index, FORMAT, storage=STORAGE)
    holes = {i for hole in source.holes for i in range(*hole)}
    return [None if i in holes else source.caption(i) for i in range(len(source))]


def test_a_new_index(shards, tmp_path):
    made = update(shards, tmp_path / "index")
    index = made.index
    assert made.added == tuple(shards)
    assert (made.returned, made.removed, made.unreadable, made.missing_numbers) == ((), (), {}, ())
    assert index.counts | {"images": 10, "captions": 20, "other": 10} == index.counts
    assert index.caption_starts.tolist() == [0, 1, 2, 4, 5, 8, 9, 13, 14, 19, 20]
    assert index.first_images.tolist() == [0, 2, 4, 6, 8, 10]
    assert [index.shard_number(i) for i in range(10)] == [0, 0, 1, 1, 2, 2, 3, 3, 4, 4]
    assert index.first_captions.tolist() == [0, 2, 5, 9, 14, 20]
    assert gone(index) == [] and index.fingerprint == index.fingerprints[-1]
    assert sorted(os.listdir(tmp_path / "index")) == sorted([META, ROWS, STARTS])


def test_the_number_of_processes_changes_nothing(shards, tmp_path):
    one = update(shards, tmp_path / "one", workers=1).index
    two = update(shards, tmp_path / "two", workers=2).index
    assert one.fingerprint == two.fingerprint and np.array_equal(one.rows, two.rows)
    seen = []
    update(shards, tmp_path / "third", on_progress=lambda *numbers: seen.append(numbers))
    assert seen == [(i, 5) for i in range(1, 6)]


class Dying(TarFormat):
    """A format whose scan takes all the memory."""

    def scan(self, path, storage):
        os._exit(9)


def test_a_lost_process_is_told(shards, tmp_path):
    with pytest.raises(RunError, match=r"process that scans .* was lost: .* use fewer workers"):
        update(shards, tmp_path / "index", format=Dying(), workers=2)
    assert not (tmp_path / "index").exists()


def test_new_shards_are_appended_whatever_their_name(shards, tmp_path):
    first = update(shards[2:4], tmp_path / "index").index
    before = captions(first)
    again = update(shards, tmp_path / "index")
    assert again.added == (shards[0], shards[1], shards[4]) and not again.removed
    assert captions(again.index)[: len(before)] == before
    assert [s.path for s in again.index.shards] == [*shards[2:4], *shards[:2], shards[4]]
    assert again.index.fingerprints[: len(first.fingerprints)] == first.fingerprints
    assert again.index.fingerprint != first.fingerprint
    assert captions(first) == before  # an opened index stays as it was


def test_nothing_new_writes_nothing(shards, tmp_path):
    update(shards, tmp_path / "index")
    before = [os.stat(tmp_path / "index" / name) for name in (META, ROWS, STARTS)]
    again = update(shards[::-1], tmp_path / "index")
    after = [os.stat(tmp_path / "index" / name) for name in (META, ROWS, STARTS)]
    assert [(s.st_ino, s.st_mtime_ns) for s in before] == [(s.st_ino, s.st_mtime_ns) for s in after]
    assert not again.added


def test_removed_shards_leave_holes_and_come_back(shards, tmp_path):
    whole = update(shards, tmp_path / "index").index
    everything = captions(whole)
    less = update([shards[0], shards[2]], tmp_path / "index")
    assert less.removed == (shards[1], shards[3], shards[4])
    assert gone(less.index) == [[2, 4], [6, 10]]
    assert less.index.fingerprint != whole.fingerprint
    assert less.index.fingerprints == whole.fingerprints
    assert less.index.counts["images"] == 4 and len(less.index.rows) == 10
    expected = [t if i < 2 or 5 <= i < 9 else None for i, t in enumerate(everything)]
    assert captions(less.index) == expected
    some = update([*shards[:3], make(tmp_path / "shards", 7)], tmp_path / "index")
    assert some.returned == (shards[1],) and len(some.added) == 1
    assert gone(some.index) == [[6, 10]] and len(some.index.rows) == 12
    assert captions(some.index)[:9] == everything[:9]
    back = update(shards, tmp_path / "index")
    assert back.returned == tuple(shards[3:]) and not back.added
    assert back.removed == (str(tmp_path / "shards" / "00007.tar"),)
    assert captions(back.index)[:20] == everything
    assert back.index.fingerprints[4] == whole.fingerprints[4]


def test_a_copy_fills_the_hole_of_its_original(shards, tmp_path):
    whole = update(shards, tmp_path / "index").index
    moved = tmp_path / "moved"
    shutil.copytree(tmp_path / "shards", moved)
    for name in os.listdir(moved):
        os.utime(moved / name, ns=(1, 1))
    paths = [str(moved / os.path.basename(path)) for path in shards]
    again = update(paths, tmp_path / "index")
    assert again.returned == tuple(paths) and not again.added and not again.removed
    assert again.index.fingerprint == whole.fingerprint and len(again.index.rows) == 10
    again.index.check(shards=paths)
    shutil.rmtree(tmp_path / "shards")
    assert captions(again.index)[0] == "caption 0 0"


def test_equal_shards_in_two_folders_are_two(shards, tmp_path):
    (tmp_path / "more").mkdir()
    twin = str(shutil.copy(shards[0], tmp_path / "more" / "00000.tar"))
    both = [shards[0], twin]
    assert len(update(both, tmp_path / "index").index.rows) == 4
    assert update(shards[1:2], tmp_path / "index").removed == (shards[0], twin)
    os.utime(twin, ns=(1, 1))
    assert update(both, tmp_path / "index").returned == (shards[0], twin)


def test_another_file_under_a_removed_name_is_new(shards, tmp_path):
    update(shards[:2], tmp_path / "index")
    os.unlink(shards[0])
    update(shards[1:2], tmp_path / "index")
    make(tmp_path / "shards", 0, word="other")
    again = update(shards[:2], tmp_path / "index")
    assert again.added == (shards[0],) and gone(again.index) == [[0, 2]]
    texts = ["caption 1 0", "caption 1 1", "caption of 1", "other 0 0", "other of 0"]
    assert captions(again.index) == [None, None, *texts]
    again.index.check(shards=shards[:2])


def test_a_changed_shard_is_refused(shards, tmp_path):
    index = update(shards, tmp_path / "index").index
    meta = (tmp_path / "index" / META).read_bytes()
    remedies = ("bring the old file back", "another name", "remove .*index", "again")
    size = os.path.getsize(shards[1])
    whole = Path(shards[1]).read_bytes()
    Path(shards[1]).write_bytes(whole.replace(b"caption 1 1", b"caption 1 2"))
    with refused("00001.tar changed", "modification time", "other content", *remedies):
        update(shards, tmp_path / "index")
    with open(shards[1], "ab") as file:
        file.write(bytes(512))
    with refused("00001.tar changed", f"size {size} -> {size + 512}", *remedies):
        update(shards, tmp_path / "index")
    assert (tmp_path / "index" / META).read_bytes() == meta and len(index.rows) == 10
    os.rename(shards[1], tmp_path / "shards" / "99999.tar")
    renamed = [p for p in shards if p != shards[1]] + [str(tmp_path / "shards" / "99999.tar")]
    again = update(renamed, tmp_path / "index")
    assert again.added == (renamed[-1],) and gone(again.index) == [[2, 4]]


def test_a_shard_of_which_only_the_time_changed_is_accepted(shards, tmp_path):
    before = update(shards, tmp_path / "index").index
    texts = captions(before)
    os.utime(shards[1], ns=(1, 1))
    with refused("00001.tar changed", "modification time", "accepts it if its content is the same"):
        before.check(shards=shards)
    again = update(shards, tmp_path / "index")
    assert (again.added, again.returned, again.removed) == ((), (), ())
    again.index.check(shards=shards)
    assert again.index.fingerprint == before.fingerprint and not len(gone(again.index))
    assert captions(again.index) == texts
    os.utime(shards[1], ns=(2, 2))
    Path(shards[1]).write_bytes(bytes(os.path.getsize(shards[1])))
    with refused("00001.tar changed", "other content"):
        update(shards, tmp_path / "index")


def test_unreadable_shards_are_reported_and_left_out(shards, tmp_path):
    whole = Path(shards[1]).read_bytes()
    Path(shards[1]).write_bytes(b"")
    Path(shards[2]).write_bytes(b"no tar" * 500)
    Path(shards[3]).write_bytes(gzip.compress(whole))
    gone = str(tmp_path / "shards" / "gone.tar")
    broken = [*shards, gone]
    made = update(broken, tmp_path / "index")
    assert made.added == (shards[0], shards[4])
    assert set(made.unreadable) == {*shards[1:4], gone}
    assert "0 bytes" in made.unreadable[shards[1]] and "no tar" in made.unreadable[shards[2]]
    assert "decompress" in made.unreadable[shards[3]] and "not there" in made.unreadable[gone]
    made.index.check(shards=broken)
    Path(shards[1]).write_bytes(whole)
    again = update(broken, tmp_path / "index")
    assert again.added == (shards[1],) and shards[1] not in again.unreadable
    assert captions(again.index)[: len(captions(made.index))] == captions(made.index)


def test_an_io_error_is_reported(shards, tmp_path, monkeypatch):
    real = TarFormat.scan

    def scan(self, path, storage):
        if path == shards[0]:
            raise OSError(5, "Input/output error")
        return real(self, path, storage)

    monkeypatch.setattr(TarFormat, "scan", scan)
    made = update(shards, tmp_path / "index")
    assert list(made.unreadable) == [shards[0]]
    assert made.unreadable[shards[0]].endswith("00000.tar cannot be read (Input/output error)")


def test_a_shard_that_vanishes_becomes_a_hole(shards, tmp_path):
    update(shards, tmp_path / "index")
    os.unlink(shards[0])
    again = update(shards, tmp_path / "index")
    assert again.removed == (shards[0],) and list(again.unreadable) == [shards[0]]
    assert gone(again.index) == [[0, 2]]


def test_missing_numbers_and_complaints(shards, tmp_path):
    half = make(tmp_path / "shards", 5)
    os.truncate(half, 3000)
    made = update([*shards[:2], *shards[3:], half], tmp_path / "index")
    assert [os.path.basename(name) for name in made.missing_numbers] == ["00002.tar"]
    assert list(made.complaints) == [half] and made.index.counts["truncated"] == 1


def test_copies_have_the_same_fingerprint(shards, tmp_path):
    index = update(shards, tmp_path / "index").index
    shutil.copytree(tmp_path / "shards", tmp_path / "copy")
    copies = [str(tmp_path / "copy" / os.path.basename(path)) for path in shards]
    os.utime(copies[0], ns=(1, 1))
    copy = update(copies, tmp_path / "second").index
    assert copy.fingerprint == index.fingerprint and copy.fingerprints == index.fingerprints
    grown = update(copies[:3], tmp_path / "third").index
    assert grown.fingerprints == index.fingerprints[:3]
    prints = {
        index.fingerprint,
        update(shards[::-1], tmp_path / "back").index.fingerprint,
        update(shards, tmp_path / "txt", format=TarFormat()).index.fingerprint,
        update(shards[1:], tmp_path / "index").index.fingerprint,
        update(shards[2:], tmp_path / "index").index.fingerprint,
    }
    assert len(prints) == 5
    os.rename(shards[0], tmp_path / "shards" / "renamed.tar")
    renamed = [str(tmp_path / "shards" / "renamed.tar"), *shards[1:]]
    assert update(renamed, tmp_path / "names").index.fingerprint not in prints


def test_the_fingerprint_sees_captions_of_the_same_length(tmp_path):
    prints = {
        update([make(tmp_path / word, 0, word)], tmp_path / f"{word}-index").index.fingerprint
        for word in ("cat", "dog")
    }
    assert len(prints) == 2


def test_refuses_what_gives_no_pairs(shards, tmp_path):
    target = tmp_path / "index"

    def build(*members, format=FORMAT):
        paths = [write_tar(tmp_path / f"{i}.tar", m) for i, m in enumerate(members)]
        update(paths, target, format=format)

    with refused("there are no shards"):
        update([], target)
    with refused("gone.tar is not there"):
        update([str(tmp_path / "gone.tar")], target)
    (tmp_path / "z.tar").write_bytes(gzip.compress(b"x"))
    with refused("z.tar is compressed", "decompress", "1 more shards cannot be used"):
        update([str(tmp_path / "z.tar"), str(tmp_path / "gone.tar")], target)
    with refused("no image with a caption in 2 shards", "without_image 2", r"0.tar: .*end in .txt"):
        build({"0.txt": b"x"}, {"1.txt": b"x"}, format=TarFormat())
    text = b'{"caption": "x", "n": 1}'
    with refused("no image with a caption", "without_caption 1", "json fields with text: caption"):
        build({"0.jpg": b"x", "0.json": text})
    with refused(r"\(nothing\)", "it has no members"):
        build({})
    assert not target.exists()
    update(shards[:1], target)
    with refused("no tar|no image"):
        build({"0.txt": b"x"})
    assert len(Index.open(target, storage=STORAGE).rows) == 2


def test_the_place(shards, tmp_path):
    update(shards, tmp_path / "deep" / "index")
    (tmp_path / "empty").mkdir()
    with refused("not there"):
        update([str(tmp_path / "none.tar")], tmp_path / "empty")
    update(shards, tmp_path / "empty")
    with refused("holds other things", "shards"):
        update(shards, tmp_path / "shards")
    (tmp_path / "file").write_text("x")
    with refused("holds other things", "file"):
        update(shards, tmp_path / "file")
    with refused("cannot be written"):
        update(shards, tmp_path / "file" / "index")
    with refused(r"is for tar \(caption_keys=\['json:captions'\]\)", r"\['txt'\]", "another dir"):
        update(shards, tmp_path / "empty", format=TarFormat())
    assert len(Index.open(tmp_path / "empty", storage=STORAGE).rows) == 10


def test_a_failed_write_leaves_the_old_index(shards, tmp_path, monkeypatch):
    def fail(*_):
        raise OSError(28, "No space left on device")

    update(shards[:2], tmp_path / "index")
    with monkeypatch.context() as patch:
        patch.setattr(update_module, "write_meta", fail)
        for name in ("index", "new"):
            with refused("cannot be written", "No space left"):
                update(shards, tmp_path / name)
    assert not (tmp_path / "new").exists()
    # What was appended does not count, and the next update writes over it.
    assert os.path.getsize(tmp_path / "index" / ROWS) == 10 * FORMAT.row.itemsize
    old = Index.open(tmp_path / "index", storage=STORAGE)
    assert len(old.rows) == 4
    again = update([*shards[:2], shards[4]], tmp_path / "index").index
    assert captions(again)[-6:] == [*(f"caption 4 {j}" for j in range(5)), "caption of 4"]
    assert os.path.getsize(tmp_path / "index" / ROWS) == 6 * FORMAT.row.itemsize
    assert captions(old) == captions(again)[:5]


def test_a_kill_leaves_the_old_index(shards, tmp_path):
    """Killed just before the new index counts."""
    index = update(shards[:2], tmp_path / "index").index
    code = f"""
import os, signal
from nlip_jax.data.formats.tar import TarFormat
from nlip_jax.data.index import update
from nlip_jax.data.storage import Storage
update.write_meta = lambda *_: os.kill(os.getpid(), signal.SIGKILL)
name = os.environ["INDEX"]
update.update_index({shards!r}, TarFormat(("json:captions",)), name, storage=Storage())
"""
    for name in ("index", "new"):
        environment = os.environ | {"INDEX": str(tmp_path / name)}
        child = subprocess.run([sys.executable, "-c", code], env=environment, check=False)
        assert child.returncode == -signal.SIGKILL
    assert captions(Index.open(tmp_path / "index", storage=STORAGE)) == captions(index)
    assert not is_index(tmp_path / "new")
    for name in ("index", "new"):
        assert update(shards, tmp_path / name).index.counts["images"] == 10


def test_updates_at_once_take_turns(shards, tmp_path):
    with ThreadPoolExecutor(6) as pool:
        made = list(pool.map(lambda i: update(shards[: 1 + i % 5], tmp_path / "index"), range(20)))
    assert {update.index.fingerprints[0] for update in made} == {made[0].index.fingerprints[0]}
    last = update(shards, tmp_path / "index").index
    assert sorted(s.path for s in last.shards) == shards and len(last.rows) == 10
    assert sorted(captions(last)) == sorted(captions(update(shards, tmp_path / "other").index))


def test_a_damaged_index_is_not_extended(shards, tmp_path):
    update(shards[:2], tmp_path / "index")
    os.truncate(tmp_path / "index" / STARTS, 16)
    with refused("cannot be used", "remove it", "again"):
        update(shards, tmp_path / "index")
    meta = tmp_path / "index" / META
    meta.write_text(json.dumps(json.loads(meta.read_text()) | {"version": 1}))
    with refused("cannot be used", "version 1, this is 2", "remove it", "again"):
        update(shards, tmp_path / "index")


def test_a_shard_without_images_has_no_ids(shards, tmp_path):
    empty = write_tar(tmp_path / "shards" / "00009.tar", {"0.mp4": b"x"})
    index = update([shards[0], empty, shards[1]], tmp_path / "index").index
    assert index.first_images.tolist() == [0, 2, 2, 4]
    assert [index.shard_number(i) for i in range(4)] == [0, 0, 2, 2]
    assert index.counts["other"] == 5
    less = update([shards[0], shards[1]], tmp_path / "index").index
    assert gone(less) == [] and less.fingerprint == index.fingerprint
