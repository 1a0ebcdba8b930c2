"""The memory cache: the same data, within its bound, and no process left behind."""

import logging
import multiprocessing
import os
import pickle
import signal
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
from tars import encode

from nlip_jax.data.cache import MemoryCache
from nlip_jax.data.failures import ReadError
from nlip_jax.data.images.decode import to_pixels
from nlip_jax.data.synthetic import SyntheticScenes
from nlip_jax.errors import RunError, UsageError

SOURCE = SyntheticScenes(50, seed=3, image_size=16, mismatched=0.3)
IMAGE_BYTES = 16 * 16 * 3


class Scenes:
    """Scenes to change in the tests below; worker processes find the classes by name."""

    fingerprint = "0"

    def __init__(self, num_images=10):
        self.num_images = num_images

    def picture(self, image_id):
        return np.full((2 + image_id % 3, 4, 3), image_id, np.uint8)  # three shapes


class Failing(Scenes):
    def picture(self, image_id):
        if image_id == 7:
            raise ValueError("image 7 is broken")
        return super().picture(0)


class Dying(Scenes):
    def picture(self, image_id):
        os._exit(3)


class Witness(Scenes):
    """Tells which process made an image and what it had imported."""

    def picture(self, image_id):
        heavy = [name in sys.modules for name in ("jax", "flax", "grain")]
        interrupt = signal.getsignal(signal.SIGINT) is signal.SIG_IGN
        return np.array([[[*os.getpid().to_bytes(3)], [any(heavy), interrupt, 0]]], np.uint8)


class Stuck(Scenes):
    """Says that it is there and never answers."""

    def picture(self, image_id):
        os.write(1, b"stuck\n")  # one write: two workers print at once
        threading.Event().wait()


class StuckElsewhere(Stuck):
    """Stuck on a system where the kernel does not tell of a parent's death."""

    def __setstate__(self, state):
        sys.platform = "elsewhere"


def no_children():
    return not multiprocessing.active_children()


@pytest.mark.parametrize("num_processes", [0, 2])
def test_pixels_ids_captions_and_fingerprint_are_those_of_the_source(num_processes):
    cache = MemoryCache(SOURCE, max_bytes=30 * IMAGE_BYTES + 5)
    cache.fill(num_processes, chunk_size=4)
    assert cache.num_cached == 30
    for number in range(50):  # the last twenty are read through
        np.testing.assert_array_equal(cache.picture(number), SOURCE.picture(number))
        assert cache.caption(number) == SOURCE.caption(number)
        assert cache.image_id(number) == SOURCE.image_id(number)
    np.testing.assert_array_equal(cache.truth(), SOURCE.truth())
    assert cache.fingerprint == SOURCE.fingerprint
    assert (len(cache), cache.num_images) == (50, 50)
    assert no_children()


@pytest.mark.parametrize("num_processes", [0, 2])
def test_images_of_several_shapes_are_kept_too(num_processes):
    source = Scenes(10)
    sizes = [source.picture(i).nbytes for i in range(10)]
    cache = MemoryCache(source, max_bytes=sum(sizes[:8]))
    cache.fill(num_processes, chunk_size=3)
    assert cache.num_cached == 8
    for number in range(10):
        np.testing.assert_array_equal(cache.picture(number), source.picture(number))


def test_kept_images_take_one_array_within_the_bound_and_cannot_be_changed():
    cache = MemoryCache(SOURCE, max_bytes=20 * IMAGE_BYTES)
    cache.fill()
    images = [cache.picture(number) for number in range(20)]
    assert len({id(image.base) for image in images}) == 1
    with pytest.raises(ValueError, match="read-only"):
        images[0][:] = 0


def test_an_empty_cache_and_one_without_room_read_through():
    cache = MemoryCache(SOURCE, max_bytes=IMAGE_BYTES - 1)
    np.testing.assert_array_equal(cache.picture(3), SOURCE.picture(3))
    cache.fill()
    assert cache.num_cached == 0
    np.testing.assert_array_equal(cache.picture(3), SOURCE.picture(3))


def test_numbers_outside_are_left_to_the_source():
    cache = MemoryCache(SOURCE, max_bytes=10**6)
    cache.fill()
    for number in (-1, 50):
        with pytest.raises(IndexError):
            cache.picture(number)


def test_pickling_takes_the_images_along():
    cache = MemoryCache(SOURCE, max_bytes=10 * IMAGE_BYTES)
    cache.fill()
    twin = pickle.loads(pickle.dumps(cache))
    assert twin.num_cached == 10
    np.testing.assert_array_equal(twin.picture(9), SOURCE.picture(9))


def test_progress_is_told_and_one_line_says_how_many_fit(caplog):
    told = []
    with caplog.at_level(logging.INFO):
        MemoryCache(SOURCE, max_bytes=30 * IMAGE_BYTES).fill(
            chunk_size=8, on_progress=lambda done, total: told.append((done, total))
        )
    assert told == [(8, 30), (16, 30), (24, 30), (30, 30)]
    assert len(caplog.records) == 1
    assert caplog.messages[0].startswith("30 of 50 images are kept in memory")


def test_worker_processes_share_the_work_ignore_ctrl_c_and_do_without_jax():
    cache = MemoryCache(Witness(4), max_bytes=100)
    cache.fill(2, chunk_size=1)
    pids = {int.from_bytes(cache.picture(i)[0, 0].tobytes()) for i in range(4)}
    assert len(pids - {os.getpid()}) == len(pids) == 2
    for number in range(4):
        np.testing.assert_array_equal(cache.picture(number)[0, 1], [False, True, 0])


@pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError])
def test_an_exception_ends_the_processes_and_leaves_the_cache_as_it_was(error):
    def abort(done, total):
        raise error("enough")

    cache = MemoryCache(SOURCE, max_bytes=10**6)
    with pytest.raises(error, match="enough"):
        cache.fill(2, chunk_size=2, on_progress=abort)
    assert no_children()
    assert cache.num_cached == 0


@pytest.mark.parametrize("num_processes", [0, 2])
def test_an_error_of_the_source_is_raised_as_it_is(num_processes):
    with pytest.raises(ValueError, match="image 7 is broken"):
        MemoryCache(Failing(), max_bytes=10**6).fill(num_processes, chunk_size=2)
    assert no_children()


def test_a_lost_process_is_a_run_error_and_no_hang():
    with pytest.raises(RunError, match="lost"):
        MemoryCache(Dying(), max_bytes=10**6).fill(1)
    assert no_children()


def test_bad_arguments_are_usage_errors():
    with pytest.raises(UsageError, match="max_bytes=-1"):
        MemoryCache(SOURCE, max_bytes=-1)
    with pytest.raises(UsageError, match="num_processes=-1"):
        MemoryCache(SOURCE, max_bytes=1).fill(-1)
    with pytest.raises(UsageError, match="chunk_size=0"):
        MemoryCache(SOURCE, max_bytes=1).fill(chunk_size=0)


@pytest.mark.parametrize("source", ["Stuck", "StuckElsewhere"])
def test_worker_processes_end_with_a_killed_parent(source):
    program = (
        f"import sys; sys.path[:0] = {[str(Path(__file__).parents[n]) for n in (0, 1)]!r}\n"
        f"from test_cache import MemoryCache, {source}\n"
        f"MemoryCache({source}(), max_bytes=10**6).fill(2, chunk_size=1)\n"
    )
    parent = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True)
    assert [parent.stdout.readline() for _ in range(2)] == ["stuck\n", "stuck\n"]
    os.kill(parent.pid, signal.SIGKILL)
    # Workers hold the pipe too and never return on their own: it ends when all are gone.
    rest, _ = parent.communicate(timeout=30)
    assert rest == ""
    assert parent.returncode == -signal.SIGKILL


class Broken(Scenes):
    """Files, the third of them no image."""

    def picture(self, image_id):
        return b"<html>" if image_id == 3 else encode(super().picture(image_id), "PNG")


@pytest.mark.parametrize("num_processes", [0, 2])
def test_files_are_kept_as_pixels_and_broken_ones_fail_as_before(num_processes):
    source, plain = Broken(), Scenes()
    cache = MemoryCache(source, max_bytes=10_000)
    cache.fill(num_processes, chunk_size=2)
    assert cache.num_cached == 10
    for number in range(10):
        if number == 3:
            with pytest.raises(ReadError) as caught:
                to_pixels(cache.picture(number))
            assert caught.value.kind == "not_an_image"
        else:
            np.testing.assert_array_equal(cache.picture(number), plain.picture(number))


def test_captions_are_kept_of_kept_images_alone():
    """Whatever the number of captions, what is kept is bounded by the images that are."""
    cache = MemoryCache(SOURCE, 7 * IMAGE_BYTES)
    cache.fill()
    assert [cache.caption(i) for i in range(50)] == [SOURCE.caption(i) for i in range(50)]
    assert sorted(cache._captions) == list(range(7))
