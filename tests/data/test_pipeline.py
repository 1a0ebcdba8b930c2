"""The pipeline: a batch is a function of its number, whoever reads it; nothing is left behind."""

import dataclasses
import os
import re
import signal
import subprocess
import sys
import textwrap
import threading
from pathlib import Path

import numpy as np
import pytest

from nlip_jax.data import ring
from nlip_jax.data.failures import KINDS, ReadError
from nlip_jax.data.images.transform import ImageTransform
from nlip_jax.data.loading import STAGES, LoadImage, LoadPair, LoadText
from nlip_jax.data.members import Ranges
from nlip_jax.data.order import Epochs, Pass, Stream
from nlip_jax.data.pipeline import Reading, open_batches, take_row_info
from nlip_jax.data.synthetic import SyntheticScenes
from nlip_jax.data.text.masking import Masked
from nlip_jax.errors import RunError, UsageError

ROOT = Path(__file__).resolve().parents[2]
SOURCE = SyntheticScenes(40, seed=0, image_size=16)


class LoadNumbers:
    """What was asked for, as arrays; worker processes find it by name."""

    def __call__(self, example_id: int, epoch: int) -> dict[str, np.ndarray]:
        image = np.full((16, 16, 3), example_id, np.uint8)
        return {"asked": np.array([example_id, epoch]), "image": image}


class CountCharacters:
    """A tokenizer of a kind."""

    def encode(self, text: str) -> np.ndarray:
        return np.array([len(text)], np.int32)


STREAM = Stream(draw=Epochs(Ranges(21)), batch_size=8, seed=0, rows=np.arange(8))


def read(start: int, stop: int, *, order=STREAM, load=None, **reading) -> list[dict]:
    with open_batches(
        order=order,
        load=load or LoadNumbers(),
        start=start,
        stop=stop,
        reading=Reading(**reading),
    ) as batches:
        return list(batches)


def assert_same(first: list[dict], second: list[dict]) -> None:
    assert len(first) == len(second)
    for a, b in zip(first, second, strict=True):
        assert a.keys() == b.keys()
        for name in a:
            assert a[name].dtype == b[name].dtype
            np.testing.assert_array_equal(a[name], b[name])


@pytest.fixture(scope="module")
def sequential() -> list[dict]:
    return read(0, 9, threads=0)


def test_rows_are_those_of_the_order(sequential):
    for number, batch in enumerate(sequential):
        block = STREAM.block(number)
        np.testing.assert_array_equal(batch["example_id"], block.ids)
        np.testing.assert_array_equal(batch["asked"], np.stack([block.ids, block.epochs], 1))
        np.testing.assert_array_equal(batch["valid"], block.valid)
        assert batch["example_id"].dtype == np.int64 and batch["valid"].dtype == bool


@pytest.mark.parametrize("start", [0, 1, 4, 8])
def test_any_batch_may_be_the_first(sequential, start):
    assert_same(read(start, 9, threads=0), sequential[start:])


@pytest.mark.parametrize("start", [9, 10])
def test_past_the_end_there_is_nothing(start):
    assert read(start, 9) == []


@pytest.mark.parametrize(
    "reading",
    [
        {"threads": 1},
        {"threads": 4},
        {"threads": 4, "prefetch": 1},
        {"threads": 16, "prefetch": 100},
    ],
)
def test_threads_change_nothing(sequential, reading):
    assert_same(read(0, 9, **reading), sequential)


def test_worker_processes_change_nothing(sequential):
    assert_same(read(3, 9, workers=2, threads=1, prefetch=2), sequential[3:])


@pytest.mark.skipif(sys.platform != "linux", reason="the ring is Linux's")
def test_large_batches_go_round_the_ring(monkeypatch):
    """More batches than slots, each of them right when it is looked at in the end."""
    taken, take = [], ring.Reader.take
    monkeypatch.setattr(
        ring.Reader, "take", lambda self, handle: taken.append(handle) or take(self, handle)
    )
    batches = read(0, 30, load=LoadLarge(), workers=2, threads=2, prefetch=3)
    assert_same(batches, read(0, 30, load=LoadLarge(), threads=0))
    assert len(taken) == 30


def test_a_share_of_the_rows():
    rows = np.array([1, 6])
    order = Stream(draw=Epochs(Ranges(21)), batch_size=8, seed=0, rows=rows)
    for mine, whole in zip(read(0, 3, order=order), read(0, 3), strict=True):
        np.testing.assert_array_equal(mine["example_id"], whole["example_id"][rows])


def test_a_pass_marks_what_only_fills_up():
    order = Pass(members=Ranges(10), batch_size=4, rows=np.arange(4), seed=1)
    batches = read(0, order.num_batches, order=order)
    ids = np.concatenate([batch["example_id"][batch["valid"]] for batch in batches])
    np.testing.assert_array_equal(np.sort(ids), np.arange(10))
    assert [batch["valid"].sum() for batch in batches] == [4, 4, 2]


def test_what_goes_wrong_in_a_thread_arrives():
    class Failing(LoadNumbers):
        def __call__(self, example_id, epoch):
            raise ValueError(f"example {example_id} is broken")

    with pytest.raises(ValueError, match="is broken"):
        read(0, 3, load=Failing())


def test_an_interrupted_reader_closes_its_threads():
    before = set(threading.enumerate())
    with open_batches(
        order=STREAM, load=LoadNumbers(), start=0, stop=1000, reading=Reading(threads=4)
    ) as batches:
        next(batches)
        started = set(threading.enumerate()) - before
    assert started
    for thread in started:
        thread.join(timeout=60)
    assert not any(thread.is_alive() for thread in started)


# --- what cannot be read --------------------------------------------------------------------------


class LoadSome(LoadNumbers):
    """A third of the examples are broken, in two ways."""

    def __call__(self, example_id: int, epoch: int) -> dict[str, np.ndarray]:
        if example_id % 3 == 1:
            kind = "truncated_image" if example_id % 2 else "empty_image"
            raise ReadError(kind, f"example {example_id}")
        return super().__call__(example_id, epoch)


def test_a_row_that_cannot_be_read_holds_another_example(sequential):
    batches = read(0, 9, threads=0, load=LoadSome())
    seen = set()
    for number, batch in enumerate(batches):
        arrays = dict(batch)
        rows = take_row_info(arrays)
        assert arrays.keys() == {"asked", "image"}
        due = sequential[number]["example_id"]
        np.testing.assert_array_equal(rows.due, due)
        np.testing.assert_array_equal(rows.is_replaced, due % 3 == 1)
        np.testing.assert_array_equal(rows.ids[~rows.is_replaced], due[~rows.is_replaced])
        assert (rows.ids % 3 != 1).all()
        np.testing.assert_array_equal(arrays["asked"][:, 0], rows.ids)
        failed = rows.failed_id[rows.failed_id >= 0]
        assert (failed % 3 == 1).all()  # a replacement may fail, too
        kinds = [KINDS[kind] for kind in rows.failed_kind[rows.failed_id >= 0]]
        assert kinds == ["truncated_image" if i % 2 else "empty_image" for i in failed]
        seen |= {len(row[row >= 0]) for row in rows.failed_id}
    assert seen >= {0, 1, 2}


def test_replacements_depend_neither_on_workers_nor_on_the_share_of_rows():
    batches = read(0, 9, threads=0, load=LoadSome())
    assert_same(read(0, 9, threads=4, load=LoadSome()), batches)
    assert_same(read(4, 9, threads=0, load=LoadSome()), batches[4:])
    rows = np.array([1, 6])
    order = Stream(draw=Epochs(Ranges(21)), batch_size=8, seed=0, rows=rows)
    for mine, whole in zip(read(0, 9, order=order, load=LoadSome()), batches, strict=True):
        for name in mine:
            np.testing.assert_array_equal(mine[name], whole[name][rows])


def test_when_nothing_can_be_read_the_run_ends():
    class Gone(LoadNumbers):
        def __call__(self, example_id, epoch):
            raise ReadError("shard_unreadable", "no such file")

    with pytest.raises(RunError, match=r"8 examples one after another .*shard_unreadable"):
        read(0, 1, load=Gone(), threads=0)


# --- rows -----------------------------------------------------------------------------------------


def load_pair(**fields) -> LoadPair:
    transform = ImageTransform(size=8, **({"crop_scale": (0.3, 1.0), "flip": True} | fields))
    return LoadPair(source=SOURCE, tokenizer=CountCharacters(), transform=transform)


def same_image(first: dict, second: dict) -> bool:
    return np.array_equal(first["image"], second["image"])


def test_augmentation_comes_from_seed_epoch_and_id():
    load = load_pair(seed=1)
    assert same_image(load(3, 2), load(3, 2))
    assert same_image(load(3, 2), load_pair(seed=1)(3, 2))
    assert not same_image(load(3, 2), load(3, 4))
    assert not same_image(load(3, 2), load_pair(seed=2)(3, 2))
    assert load(3, 2)["image"].shape == (8, 8, 3)


@pytest.mark.parametrize("fields", [{"flip": False}, {"crop_scale": (1.0, 1.0)}, {}])
def test_every_kind_of_augmentation_changes_from_epoch_to_epoch(fields):
    load = load_pair(**fields)
    images = {load(5, epoch)["image"].tobytes() for epoch in range(16)}
    assert len(images) > 1
    if "crop_scale" in fields:
        assert len(images) == 2  # the image and its mirror


def test_passes_do_not_augment():
    load = load_pair()
    plain = LoadPair(
        source=SOURCE,
        tokenizer=CountCharacters(),
        transform=load.transform.without_augmentation(),
    )
    assert not plain.transform.is_random
    assert same_image(plain(3, 0), plain(3, 7))
    image = LoadImage(source=SOURCE, transform=plain.transform)
    assert same_image(plain(3, 0), image(SOURCE.image_id(3), 0))
    assert plain(3, 0)["tokens"] == len(SOURCE.caption(3))


def test_a_second_view_is_another_draw_of_the_same_image():
    load = dataclasses.replace(load_pair(), second_view=True)
    views = [load(3, epoch) for epoch in range(20)]
    assert any(not np.array_equal(row["image"], row["image_view"]) for row in views)
    assert all(same_image(row, load_pair()(3, epoch)) for epoch, row in enumerate(views))
    assert np.array_equal(load(3, 2)["image_view"], views[2]["image_view"])
    both = np.stack([row["image_view"] for row in views])
    assert len(np.unique(both, axis=0)) > 1


def test_masked_tokens_stand_beside_the_tokens():
    def mask(tokens, *, example_id, epoch):
        return Masked(inputs=tokens + example_id, labels=tokens + epoch)

    row = dataclasses.replace(load_pair(), mask=mask)(3, 2)
    assert row["masked_tokens"] == row["tokens"] + 3 and row["mask_labels"] == row["tokens"] + 2


def test_the_time_of_every_stage_is_known():
    row = load_pair()(3, 2)
    assert row["stage_seconds"].shape == (len(STAGES),) and (row["stage_seconds"] >= 0).all()
    batch = read(0, 1, load=load_pair(), threads=0)[0]
    assert take_row_info(batch).stage_seconds.sum() > 0


def test_texts_by_their_place():
    load = LoadText(texts=("a", "abc"), tokenizer=CountCharacters())
    assert load(1, 0)["tokens"].tolist() == [3]


@pytest.mark.parametrize("scale", [(0.0, 1.0), (0.5, 0.4), (0.5, 1.5)])
def test_crops_that_are_refused(scale):
    with pytest.raises(UsageError, match=r"data\.crop_scale"):
        ImageTransform(size=8, crop_scale=scale)


# --- killed ---------------------------------------------------------------------------------------

TRAINER = """
    import multiprocessing, sys
    import numpy as np
    sys.path.insert(0, {folder!r})
    from test_pipeline import LoadLarge
    from nlip_jax.data.members import Ranges
    from nlip_jax.data.order import Epochs, Stream
    from nlip_jax.data.pipeline import Reading, open_batches

    if __name__ == "__main__":
        order = Stream(draw=Epochs(Ranges(100)), batch_size=8, seed=0, rows=np.arange(8))
        reading = Reading(workers=2, threads=1)
        with open_batches(
            order=order, load=LoadLarge(), start=0, stop=10**6, reading=reading
        ) as batches:
            for batch in batches:
                children = [process.pid for process in multiprocessing.active_children()]
                print("working", *children, flush=True)
"""


class LoadLarge(LoadNumbers):
    """Images that are worth a place in the ring."""

    def __call__(self, example_id: int, epoch: int) -> dict[str, np.ndarray]:
        return {"image": np.full((64, 64, 3), example_id, np.uint8)}


def shared_memory(pids: list[int]) -> set[str]:
    """Memory that processes share, as /proc names it: anonymous files have no path to outlive."""
    maps = "".join(Path(f"/proc/{pid}/maps").read_text() for pid in pids)
    return set(re.findall(r"/dev/shm/psm_\w+|/memfd:nlip_jax\S*", maps))


def is_running(pid: int) -> bool:
    """A process that ended and that nobody waited for is no longer running."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


@pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")
def test_a_killed_trainer_leaves_neither_workers_nor_shared_memory(tmp_path):
    script = tmp_path / "trainer.py"
    script.write_text(textwrap.dedent(TRAINER.format(folder=str(Path(__file__).parent))))
    trainer = subprocess.Popen(
        [sys.executable, script],
        cwd=ROOT,
        env=dict(os.environ, PYTHONPATH=str(ROOT)),
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    workers = []
    try:
        for _ in range(5):
            word, *pids = trainer.stdout.readline().split()
            assert word == "working"
            workers = [int(pid) for pid in pids]
        assert len(workers) == 2 and all(map(is_running, workers))
        assert shared_memory([trainer.pid, *workers]) == {"/memfd:nlip_jax"}
        trainer.kill()
        trainer.communicate(timeout=60)  # until the last process that holds the pipe has ended
        assert trainer.returncode == -signal.SIGKILL
        assert not any(map(is_running, workers))
    finally:
        for pid in [trainer.pid, *workers]:
            if is_running(pid):
                os.kill(pid, signal.SIGKILL)
