import json
import os
import signal
import subprocess
import sys
import textwrap
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from array_record.python.array_record_module import ArrayRecordReader
from listed_source import ListedSource
from tars import encode, pixels

from nlip_jax.data.formats.array_record import ArrayRecordFormat
from nlip_jax.data.formats.records import decode_record
from nlip_jax.data.images.decode import decode
from nlip_jax.data.prepare import census
from nlip_jax.data.prepare.plan import Folder, Plan
from nlip_jax.data.prepare.run import prepare
from nlip_jax.data.storage import Storage
from nlip_jax.data.synthetic import SyntheticScenes
from nlip_jax.errors import Preempted, RunError, UsageError


def make_folder(path, source, *, num_shards=3, **fields) -> Folder:
    plan = Plan(
        fingerprint=source.fingerprint,
        num_images=source.num_images,
        num_examples=len(source),
        num_shards=num_shards,
        **{"max_pixels": 10**8, "max_side": 0, "rules": {}, **fields},
    )
    return Folder(path, plan)


def run(path, source, *, processes=0, should_stop=lambda: False, on_progress=None, **fields):
    folder = make_folder(path, source, **fields)
    folder.claim()
    return prepare(
        source,
        folder,
        processes=processes,
        on_progress=on_progress or (lambda stage, done, total: None),
        should_stop=should_stop,
    )


def records(path) -> list[dict]:
    found = []
    for file in sorted(path.glob("*.array_record")):
        reader = ArrayRecordReader(str(file))
        found += [decode_record(data) for data in reader.read_all()] if reader.num_records() else []
    return found


def contents(path) -> dict[str, bytes]:
    return {p.relative_to(path).as_posix(): p.read_bytes() for p in path.rglob("*") if p.is_file()}


FILE = encode(pixels(0))


def test_one_record_for_an_image_with_all_its_captions(tmp_path):
    files = tuple(encode(pixels(i), fmt) for i, fmt in enumerate(("JPEG", "PNG", "WEBP", "JPEG")))
    source = ListedSource(files, (("one",), ("two", "three"), ("four",), ("fünf",)))
    manifest = run(tmp_path / "o", source, num_shards=2)
    found = records(tmp_path / "o")
    assert [record["image"] for record in found] == list(files)  # not one byte altered
    assert [tuple(record["captions"]) for record in found] == list(source.captions)
    assert [record["key"] for record in found] == ["key0", "key1", "key2", "key3"]
    assert manifest["images"] == {"seen": 4, "kept": 4}
    assert manifest["captions"] == {"seen": 5, "kept": 5}
    assert sorted(os.listdir(tmp_path / "o")) == [
        "manifest.json",
        "pairs-00000-of-00002.array_record",
        "pairs-00001-of-00002.array_record",
    ]
    stored = json.loads((tmp_path / "o" / "manifest.json").read_text())
    assert stored == {"plan": stored["plan"], **manifest}
    assert stored["plan"]["fingerprint"] == "f00d"


def test_read_back_as_array_record(tmp_path):
    source = SyntheticScenes(num_examples=10, seed=0, image_size=16)
    run(tmp_path / "o", source, num_shards=2)
    layout, storage, number = ArrayRecordFormat(), Storage(), 0
    for path in sorted(map(str, (tmp_path / "o").glob("*.array_record"))):
        scan, shard = layout.scan(path, storage), layout.open(path, storage)
        assert scan.counts["images"] == len(scan.rows) == 5
        for row in scan.rows:
            assert (decode(shard.image(row)) == source.picture(number)).all()  # PNG: no loss
            assert next(filter(None, shard.captions(row))) == [source.caption(number)]
            number += 1


def test_a_shard_without_records_can_be_read(tmp_path):
    source = ListedSource((FILE, FILE), (("one two three",), ("one",)))
    manifest = run(tmp_path / "o", source, num_shards=2, rules={"min_words": 3})
    assert [shard["images"]["kept"] for shard in manifest["shards"]] == [1, 0]
    path = str(tmp_path / "o" / manifest["shards"][1]["file"])
    assert len(ArrayRecordFormat().scan(path, Storage()).rows) == 0


def test_holes_are_left_out(tmp_path):
    captions = tuple((f"a{i}", f"b{i}") for i in range(5))
    source = ListedSource((FILE,) * 5, captions, np.array([[2, 5], [8, 10]]))
    manifest = run(tmp_path / "o", source)
    assert [r["captions"] for r in records(tmp_path / "o")] == [
        ["a0", "b0"],
        ["b2"],
        ["a3", "b3"],
    ]
    assert manifest["images"] == {"seen": 3, "kept": 3}


def test_what_cannot_be_read_is_counted_by_kind(tmp_path):
    pictures = (FILE, "missing_bytes", b"<html>", b"", FILE[:20], FILE, "missing_bytes", FILE)
    captions = (*((f"text {i}",) for i in range(7)), ("unreadable", "fine"))
    manifest = run(tmp_path / "o", ListedSource(pictures, captions), max_pixels=10**6)
    assert manifest["images"] == {
        "seen": 8,
        "kept": 3,
        "unreadable empty_image": 1,
        "unreadable missing_bytes": 2,
        "unreadable not_an_image": 1,
        "unreadable truncated_image": 1,
    }
    assert manifest["captions"] == {
        "seen": 9,
        "kept": 3,
        "of dropped images": 5,
        "unreadable unreadable_caption": 1,
    }
    assert [r["captions"] for r in records(tmp_path / "o")] == [["text 0"], ["text 5"], ["fine"]]


def test_too_many_pixels(tmp_path):
    source = ListedSource((FILE, encode(pixels(0, 100, 100))), (("a",), ("b",)))
    manifest = run(tmp_path / "o", source, num_shards=1, max_pixels=5_000)
    assert manifest["images"] == {"seen": 2, "kept": 1, "unreadable too_many_pixels": 1}


def test_larger_images_are_shrunk(tmp_path):
    small, wide, raw = encode(pixels(0, 30, 40)), encode(pixels(1, 60, 120)), pixels(2, 90, 45)
    source = ListedSource((small, wide, raw, "missing_bytes"), (("a",), ("b",), ("c",), ("d",)))
    run(tmp_path / "o", source, num_shards=1, max_side=60)
    found = [record["image"] for record in records(tmp_path / "o")]
    assert found[0] == small
    shapes = [decode(image).shape for image in found]
    assert shapes == [(30, 40, 3), (30, 60, 3), (60, 30, 3)]
    assert all(image.startswith(b"\xff\xd8\xff") for image in found[1:])
    near = np.abs(decode(found[2]).astype(int).mean((0, 1)) - raw.astype(int).mean((0, 1)))
    assert near.max() < 3


def rule_source() -> ListedSource:
    """13 images; "spam spam spam" belongs to 11 of them, twice to one."""
    files = [encode(pixels(i, 210, 220)) for i in range(13)]
    files[11] = encode(pixels(11, 200, 300))
    files[12] = encode(pixels(12, 210, 700))
    captions = [("spam spam spam", f"a red dog number {'twelve' * (i == 4)}") for i in range(11)]
    captions[0] = ("spam spam spam", "spam spam spam", "two words")
    captions[1] = ("spam spam spam", "a dog " * 11)
    captions[2] = ("spam spam spam", *(f"a dog {i}" for i in range(1000)))
    captions[3] = ("spam spam spam", "a red doggo")
    return ListedSource(tuple(files), (*captions, ("a small dog",), ("a wide dog",)))


ALL_RULES = {
    "min_side": 200,
    "max_aspect": 3.0,
    "max_texts": 1000,
    "max_images": 10,
    "min_words": 3,
    "max_words": 20,
    "min_token_count": 2,
}


def test_every_rule_drops_and_counts(tmp_path):
    manifest = run(tmp_path / "o", rule_source(), rules=ALL_RULES)
    assert manifest["images"] == {
        "seen": 13,
        "kept": 6,
        "min_side": 1,
        "max_aspect": 1,
        "max_texts": 1,
        "without a caption": 4,
    }
    assert manifest["captions"] == {
        "seen": sum(map(len, rule_source().captions)),
        "kept": 6,
        "max_images": 11,
        "min_words": 1,
        "max_words": 1,
        "min_token_count": 2,  # doggo, twelve
        "of dropped images": 1001 + 2,
    }
    assert {text for r in records(tmp_path / "o") for text in r["captions"]} == {"a red dog number"}


def test_a_rule_that_drops_nothing_is_reported(tmp_path):
    source = ListedSource((FILE,), (("one",),))
    manifest = run(tmp_path / "o", source, num_shards=1, rules={"max_texts": 5, "min_words": 1})
    assert manifest["images"] == {"seen": 1, "kept": 1, "max_texts": 0}
    assert manifest["captions"] == {"seen": 1, "kept": 1, "min_words": 0}


def test_frequent_tokens_are_those_of_the_raw_data(tmp_path):
    source = ListedSource((FILE,) * 4, (("a b",), ("a b",), ("a c",), ("c a b",)))
    # a 4, b 3, "a b" 3, c 2, "a c" 1, "c a" 1: the first three make the texts of a and b
    manifest = run(tmp_path / "o", source, rules={"top_tokens": 3})
    assert [r["captions"] for r in records(tmp_path / "o")] == [["a b"], ["a b"]]
    assert manifest["captions"]["top_tokens"] == 2


def test_language_function(tmp_path):
    source = ListedSource((FILE, FILE), (("a dog", "ein süßer Hund"), ("ein größerer Hund",)))
    rules = {"language": "listed_source:accepts_english"}
    manifest = run(tmp_path / "o", source, rules=rules)
    assert manifest["captions"] == {"seen": 3, "kept": 1, "language": 2}


def test_counts_add_up_over_random_data(tmp_path):
    rng = np.random.default_rng(0)
    kinds = (FILE, FILE, FILE, "missing_bytes", b"no image")
    texts = ["one", "one two three", "four five six seven", "unreadable", "spam spam"]
    captions = tuple(tuple(rng.choice(texts, rng.integers(1, 4))) for _ in range(40))
    source = ListedSource(tuple(kinds[i] for i in rng.integers(0, 5, 40)), captions)
    manifest = run(tmp_path / "o", source, rules={"min_words": 2, "max_images": 20})
    for what, total in (("images", 40), ("captions", len(source))):
        seen = dict(manifest[what])
        assert seen.pop("seen") == sum(seen.values()) == total
        summed = Counter()
        for shard in manifest["shards"]:
            summed.update(shard[what])
        assert {k: v for k, v in manifest[what].items() if v} == {
            k: v for k, v in summed.items() if v
        }
    assert len(records(tmp_path / "o")) == manifest["images"]["kept"]


@pytest.fixture(scope="module")
def scenes() -> SyntheticScenes:
    return SyntheticScenes(num_examples=60, seed=0, image_size=16, mismatched=0.5)


SCENE_RULES = {"max_images": 1, "top_tokens": 100, "max_words": 9}


@pytest.fixture(scope="module")
def never_stopped(scenes, tmp_path_factory) -> dict[str, bytes]:
    path = tmp_path_factory.mktemp("never") / "o"
    run(path, scenes, num_shards=5, rules=SCENE_RULES)
    return contents(path)


def test_processes_do_not_matter(scenes, never_stopped, tmp_path):
    seen = []
    run(
        tmp_path / "o",
        scenes,
        processes=2,
        on_progress=lambda stage, done, total: seen.append((stage, done, total)),
        num_shards=5,
        rules=SCENE_RULES,
    )
    assert contents(tmp_path / "o") == never_stopped
    assert seen[0] == ("counting", 0, 60) and seen[-1] == ("writing", 60, 60)


def test_stopped_after_every_task(scenes, never_stopped, tmp_path, monkeypatch):
    monkeypatch.setattr(census, "SPAN", 20)  # three parts to count; other files meanwhile
    for tasks in range(1, 9):
        left = iter([False, True])
        with pytest.raises(Preempted, match="run the same command again"):
            run(
                tmp_path / "o",
                scenes,
                should_stop=lambda left=left: next(left),
                num_shards=5,
                rules=SCENE_RULES,
            )
        if tasks < 3:
            assert not list((tmp_path / "o").glob("*.array_record"))
        if tasks == 7:
            break
    run(tmp_path / "o", scenes, num_shards=5, rules=SCENE_RULES)
    assert contents(tmp_path / "o") == never_stopped


KILLED = """
    import sys
    from pathlib import Path
    from test_prepare_run import SCENE_RULES, run
    from nlip_jax.data.synthetic import SyntheticScenes
    if __name__ == "__main__":
        scenes = SyntheticScenes(num_examples=60, seed=0, image_size=16, mismatched=0.5)
        run(Path(sys.argv[1]), scenes, processes=2, num_shards=5, rules=SCENE_RULES)
"""
# Where the process that gets there kills itself, and how the parent ends.
MOMENTS = {
    "prepare_counted what=tokens": 1,  # in a worker
    "prepare_written number=1": 1,
    "prepare_named number=2": -signal.SIGKILL,  # in the parent
    "prepare_finished number=3": -signal.SIGKILL,
    "prepare_complete": -signal.SIGKILL,
}


@pytest.mark.parametrize("moment", MOMENTS)
def test_killed_anywhere(scenes, never_stopped, tmp_path, moment):
    script = tmp_path / "script.py"
    script.write_text(textwrap.dedent(KILLED))
    folders = [str(Path(__file__).parents[2]), str(Path(__file__).parent), os.getcwd()]
    ended = subprocess.run(
        [sys.executable, str(script), str(tmp_path / "o")],
        env=os.environ | {"NLIP_JAX_KILL_AT": moment, "PYTHONPATH": os.pathsep.join(folders)},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert ended.returncode == MOMENTS[moment], ended.stderr
    if ended.returncode == 1:
        assert "a worker process was lost" in ended.stderr
    run(tmp_path / "o", scenes, num_shards=5, rules=SCENE_RULES)
    assert contents(tmp_path / "o") == never_stopped


def test_finished_shards_are_kept_and_damaged_ones_written_again(scenes, never_stopped, tmp_path):
    run(tmp_path / "o", scenes, num_shards=5, rules=SCENE_RULES)
    files = sorted((tmp_path / "o").glob("*.array_record"))
    before = {file: file.stat().st_mtime_ns for file in files}
    files[1].unlink()
    files[3].write_bytes(files[3].read_bytes()[:-1])
    run(tmp_path / "o", scenes, num_shards=5, rules=SCENE_RULES)
    assert contents(tmp_path / "o") == never_stopped
    same = [before[file] == file.stat().st_mtime_ns for file in files]
    assert same == [True, False, True, False, True]


def test_another_plan_is_refused(scenes, tmp_path):
    run(tmp_path / "o", scenes, num_shards=2)
    with pytest.raises(UsageError, match=r"num_shards is 2, now it is 3.*--output"):
        make_folder(tmp_path / "o", scenes, num_shards=3).claim()
    with pytest.raises(UsageError, match="rules is"):
        make_folder(tmp_path / "o", scenes, num_shards=2, rules={"min_words": 3}).claim()
    other = SyntheticScenes(num_examples=60, seed=1, image_size=16)
    with pytest.raises(UsageError, match="fingerprint"):
        make_folder(tmp_path / "o", other, num_shards=2).claim()


@pytest.mark.parametrize("name", ["thesis.tex", "manifest.json"])
def test_folders_of_others_are_left_alone(scenes, tmp_path, name):
    (tmp_path / name).write_text("{}")
    with pytest.raises(UsageError, match=name):
        make_folder(tmp_path, scenes).claim()
    assert os.listdir(tmp_path) == [name]


def test_a_disk_that_is_full(scenes, tmp_path):
    folder = make_folder(tmp_path / "o", scenes)
    folder.claim()
    (folder.progress / f"{folder.shard(1).name}.tmp").symlink_to("/dev/full")
    with pytest.raises(RunError, match=r"cannot be written.*run the same command again"):
        run(tmp_path / "o", scenes)
    assert not folder.shard(1).exists() and folder.shard(0).exists()
