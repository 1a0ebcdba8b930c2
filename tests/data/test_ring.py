"""The ring between a worker and the trainer: what is written arrives, slots come back."""

import multiprocessing
import sys

import jax
import numpy as np
import pytest

from nlip_jax.data import ring

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="anonymous files are Linux's")

SPECS = {
    "image": ((4, 150, 150, 3), np.dtype(np.uint8)),
    "mask": ((4, 20_000), np.dtype(np.float32)),
    "tokens": ((4, 8), np.dtype(np.int32)),
}


def fill(placed: ring.Placed, value: int) -> bytes:
    for array in placed.arrays.values():
        array[...] = value
    return placed.handle


def test_large_arrays_travel_and_small_ones_do_not():
    made, reader = ring.Ring(2), ring.Reader()
    placed = made.place(SPECS)
    assert placed.arrays.keys() == {"image", "mask"}
    assert made.place({"tokens": SPECS["tokens"]}) is None
    arrays = reader.take(fill(placed, 7))
    for name, array in arrays.items():
        assert (array.shape, array.dtype) == SPECS[name]
        assert (array == 7).all() and array.ctypes.data % 64 == 0


def test_slots_are_free_again_once_they_are_taken():
    made, reader = ring.Ring(2), ring.Reader()
    first, second = (fill(made.place(SPECS), value) for value in (1, 2))
    assert made.place(SPECS) is None  # both are on their way
    one = reader.take(first)
    third = fill(made.place(SPECS), 3)
    assert made.place(SPECS) is None
    assert [int(reader.take(handle)["image"].max()) for handle in (second, third)] == [2, 3]
    assert (one["image"] == 1).all()  # a copy: the slot was written again


def test_a_batch_that_is_too_large_goes_another_way():
    made = ring.Ring(2)
    assert made.place(SPECS) is not None
    assert made.place({"image": ((5, 200, 200, 3), np.dtype(np.uint8))}) is None
    assert made.place({"image": ((2, 150, 150, 3), np.dtype(np.uint8))}) is not None


def write(pipe) -> None:
    made = ring.Ring(3)
    for value in range(20):
        while (placed := made.place(SPECS)) is None:
            pass
        pipe.send_bytes(fill(placed, value))
    pipe.recv_bytes()


def test_from_another_process():
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    worker = context.Process(target=write, args=(theirs,))
    worker.start()
    reader = ring.Reader()
    for value in range(20):
        arrays = reader.take(ours.recv_bytes())
        assert (arrays["image"] == value).all() and (arrays["mask"] == value).all()
    ours.send_bytes(b"enough")
    worker.join()
    assert worker.exitcode == 0


def test_memory_serves_again_only_when_nothing_refers_to_it():
    buffers, shape = ring.Buffers(), (64, 1000)
    first = buffers.empty(shape, np.dtype(np.float32))
    first[...] = 1
    part, place = first[3:, ::2], first.ctypes.data
    del first
    second = buffers.empty(shape, np.dtype(np.float32))
    second[...] = 2
    assert second.ctypes.data != place and (part == 1).all()  # a view is a reference
    del part
    third = buffers.empty(shape, np.dtype(np.float32))
    assert third.ctypes.data == place and third.flags.writeable and third.shape == shape
    on_device = jax.block_until_ready(jax.device_put(third))
    is_shared = on_device.unsafe_buffer_pointer() == place  # as XLA does with aligned memory
    del third
    fourth = buffers.empty(shape, np.dtype(np.float32))
    assert (fourth.ctypes.data != place) == is_shared


def test_aligned_arrays():
    for size in (1, 63, 64, 1000):
        array = ring.empty((size, 3), np.dtype(np.float32))
        assert array.ctypes.data % 64 == 0 and array.shape == (size, 3)
        assert array.flags.c_contiguous and array.flags.writeable
