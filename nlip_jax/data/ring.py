"""Batches from worker processes to the trainer, through memory that is allocated once.

Grain hands over every array in a new block of shared memory, and the kernel clears each page of
it: for decoded images that costs a tenth of the decoding. Here each worker keeps a ring of slots
in one anonymous file and writes rows right into them; the trainer maps that file and copies a
batch out. The file has no name, so nothing of it outlives its processes, however they end.
"""

import json
import math
import mmap
import os
import sys
import threading
import weakref
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

HANDLE = "in_ring"  # the element of a batch that says where its arrays are
_PAGE = mmap.ALLOCATIONGRANULARITY
LEAST_BYTES = 1 << 16  # of an array: smaller ones travel through Grain's queue
_ALIGNMENT = 64  # bytes: from there on, XLA takes an array on the host as it is
_FREE, _BUSY = 0, 1

Spec = tuple[tuple[int, ...], np.dtype]


def is_available() -> bool:
    """Whether this system has anonymous files that another process can reach."""
    return sys.platform == "linux" and os.path.isdir(f"/proc/{os.getpid()}/fd")


def empty(shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
    """A new array that XLA need not copy to use it on a CPU."""
    dtype = np.dtype(dtype)
    size = math.prod(shape) * dtype.itemsize
    memory = np.empty(size + _ALIGNMENT, np.uint8)
    start = -memory.ctypes.data % _ALIGNMENT
    return memory[start : start + size].view(dtype).reshape(shape)


@dataclass(frozen=True)
class Placed:
    """Arrays of one batch, in a slot.

    Attributes:
      arrays: to be written, by name.
      handle: for `Reader.take`, once they are.
    """

    arrays: dict[str, np.ndarray]
    handle: bytes


class Ring:
    """The slots of one worker process; its threads share them.

    Args:
      num_slots: more than the batches that are under way between this worker and the trainer.
    """

    def __init__(self, num_slots: int) -> None:
        self._num_slots = num_slots
        self._lock = threading.Lock()
        self._descriptor = -1
        self._slot_bytes = 0

    def place(self, specs: Mapping[str, Spec]) -> Placed | None:
        """Room for the large ones of some arrays.

        Args:
          specs: shape and dtype by name.

        Returns:
          None where no slot is free or large enough, or no array is worth it: they then travel in
          Grain's way.
        """
        large = {name: spec for name, spec in specs.items() if _num_bytes(spec) >= LEAST_BYTES}
        size = sum(_whole_pages(_num_bytes(spec)) for spec in large.values())
        if not large:
            return None
        with self._lock:
            if self._descriptor < 0:
                self._make(size)
            free = (s for s in range(self._num_slots) if self._flags[s] == _FREE)
            slot = next(free, None)
            if slot is None or size > self._slot_bytes:
                return None
            self._flags[slot] = _BUSY
        start, offsets = _whole_pages(self._num_slots) + slot * self._slot_bytes, {}
        for name, spec in large.items():
            offsets[name] = start
            start += _whole_pages(_num_bytes(spec))
        where = {
            "pid": os.getpid(),
            "descriptor": self._descriptor,
            "size": len(self._memory),
            "slot": slot,
            "arrays": [
                [name, offsets[name], list(shape), np.dtype(dtype).str]
                for name, (shape, dtype) in large.items()
            ],
        }
        return Placed(
            arrays={name: _view(self._memory, offsets[name], *large[name]) for name in large},
            handle=json.dumps(where).encode(),
        )

    def _make(self, slot_bytes: int) -> None:
        self._slot_bytes = slot_bytes
        self._descriptor = os.memfd_create("nlip_jax batches")
        size = _whole_pages(self._num_slots) + self._num_slots * slot_bytes
        os.ftruncate(self._descriptor, size)
        self._memory = mmap.mmap(self._descriptor, size)
        self._flags = _view(self._memory, 0, (self._num_slots,), np.dtype(np.uint8))


class Buffers:
    """Memory for arrays that come and go: what the last one used serves the next one.

    The kernel clears the pages of a new block, which takes longer than to fill them.
    """

    def __init__(self) -> None:
        self._free: dict[int, list[np.ndarray]] = {}

    def empty(self, shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
        """A new array as of `empty`; its memory comes back when nothing refers to it any more."""
        size = _num_bytes((shape, dtype))
        free = self._free.setdefault(size, [])
        memory = free.pop() if free else empty((size,), np.dtype(np.uint8))
        # Made from a buffer, it is what all views of it refer to, those that XLA holds as well.
        lease = np.frombuffer(memory.data, np.uint8)
        weakref.finalize(lease, free.append, memory).atexit = False
        return lease.view(dtype).reshape(shape)


class Reader:
    """The trainer's side of the rings of its workers."""

    def __init__(self) -> None:
        self._rings: dict[tuple[int, int], mmap.mmap] = {}
        self._buffers = Buffers()

    def take(self, handle: bytes) -> dict[str, np.ndarray]:
        """Copies the arrays of a slot, which is free again then.

        Args:
          handle: of `Placed`.
        """
        where = json.loads(handle)
        memory = self._map(where["pid"], where["descriptor"], where["size"])
        arrays = {}
        for name, offset, shape, dtype in where["arrays"]:
            arrays[name] = self._buffers.empty(tuple(shape), np.dtype(dtype))
            np.copyto(arrays[name], _view(memory, offset, tuple(shape), np.dtype(dtype)))
        memory[where["slot"]] = _FREE
        return arrays

    def _map(self, pid: int, descriptor: int, size: int) -> mmap.mmap:
        memory = self._rings.get((pid, descriptor))
        if memory is None:
            file = os.open(f"/proc/{pid}/fd/{descriptor}", os.O_RDWR)
            memory = self._rings[pid, descriptor] = mmap.mmap(file, size)
            os.close(file)
        return memory


def _view(memory: mmap.mmap, offset: int, shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
    return np.frombuffer(memory, dtype, math.prod(shape), offset).reshape(shape)


def _num_bytes(spec: Spec) -> int:
    shape, dtype = spec
    return math.prod(shape) * np.dtype(dtype).itemsize


def _whole_pages(size: int) -> int:
    return -(-size // _PAGE) * _PAGE
