"""The Grain pipeline: batches of this process's rows, in order, from any batch on.

There is no state to save: a batch is a function of its number (see `order.py`), so a run resumes
by opening the pipeline at the batch it wants. With `workers > 0` rows are made in processes.
"""

import contextlib
import dataclasses
import functools
from collections.abc import Iterator

import grain
import numpy as np
from absl import flags

from nlip_jax.data import ring
from nlip_jax.data.failures import KINDS, ReadError
from nlip_jax.data.loading import STAGES, Loader
from nlip_jax.data.order import Block, Pass, Stream
from nlip_jax.data.worker_process import die_with_parent, keep_freed_memory
from nlip_jax.errors import RunError

_ATTEMPTS = 8  # examples tried for one row
_ON_THE_WAY = 5  # batches between a worker and the trainer beside those made ahead, at the most

_ring: ring.Ring | None = None  # of this process, if it is a worker


@dataclasses.dataclass(frozen=True)
class Reading:
    """How rows are read; none of it changes what they are.

    Attributes:
      workers: Grain worker processes; 0 reads in threads of this process.
      threads: threads that make batches, in this process or in each worker; 0 makes each batch
        when it is asked for.
      prefetch: batches made ahead.
      in_memory: whether images come from the memory of this process, out of reach of workers.
    """

    workers: int = 0
    threads: int = 2
    prefetch: int = 4
    in_memory: bool = False


@dataclasses.dataclass(frozen=True)
class RowInfo:
    """What is known of the rows of a batch beside their arrays.

    A row whose example cannot be read holds another, real one, chosen by its position.

    Attributes:
      ids: [k] int64, the examples in the rows.
      valid: [k] bool, False on rows that only fill up.
      failed_id: [k, attempts] int64, the examples that could not be read in their place, the
        first of them the one that was due; -1 where none failed.
      failed_kind: [k, attempts] int8, index into `KINDS`.
      stage_seconds: [stages] seconds that making the rows took, by `STAGES`; 0 where unknown.
    """

    ids: np.ndarray
    valid: np.ndarray
    failed_id: np.ndarray
    failed_kind: np.ndarray
    stage_seconds: np.ndarray

    @property
    def is_replaced(self) -> np.ndarray:
        """Whether each row holds another example than the one that was due, [k] bool."""
        return self.failed_id[:, 0] >= 0

    @property
    def due(self) -> np.ndarray:
        """The examples that were due, [k] int64."""
        return np.where(self.is_replaced, self.failed_id[:, 0], self.ids)


def take_row_info(batch: dict[str, np.ndarray]) -> RowInfo:
    """Takes what is no input of a model out of a batch of `open_batches`."""
    seconds = batch.pop("stage_seconds", np.zeros((1, len(STAGES)), np.float32))
    return RowInfo(
        ids=batch.pop("example_id"),
        valid=batch.pop("valid"),
        failed_id=batch.pop("failed_id"),
        failed_kind=batch.pop("failed_kind"),
        stage_seconds=seconds.sum(0, dtype=np.float64),
    )


class _Batches:
    """Number of a batch -> this process's rows of it; what Grain sees as its data source.

    Whole batches, so that each has the same rows however many threads and workers make them, and
    Grain's bookkeeping, which takes 15 us an element, comes once for each.
    """

    def __init__(self, *, order: Stream | Pass, load: Loader, num_batches: int):
        self._order, self._load, self._num_batches = order, load, num_batches

    def __len__(self) -> int:
        return self._num_batches

    def __getitem__(self, number: int) -> dict[str, np.ndarray]:
        number = int(number)
        block = self._order.block(number)
        info = {
            "example_id": block.ids.copy(),
            "valid": block.valid,
            "failed_id": np.full((len(block.ids), _ATTEMPTS), -1, np.int64),
            "failed_kind": np.zeros((len(block.ids), _ATTEMPTS), np.int8),
        }
        made = self._read(number, 0, block, info)
        specs = {
            name: ((len(block.ids), *value.shape), value.dtype) for name, value in made.items()
        }
        placed = _ring.place(specs) if _ring is not None else None
        there = placed.arrays if placed is not None else {}
        arrays = {name: there[name] if name in there else ring.empty(*specs[name]) for name in made}
        for row in range(len(block.ids)):  # each goes to its place while it is in the cache
            made = made if row == 0 else self._read(number, row, block, info)
            for name, array in arrays.items():
                array[row] = made[name]
        for name in there:
            del arrays[name]
        return arrays | info | ({ring.HANDLE: placed.handle} if placed is not None else {})

    def _read(
        self, number: int, row: int, block: Block, info: dict[str, np.ndarray]
    ) -> dict[str, np.ndarray]:
        """The row's example, or the first of its replacements that can be read."""
        example_id, epoch = int(block.ids[row]), int(block.epochs[row])
        for attempt in range(_ATTEMPTS):
            try:
                arrays = self._load(example_id, epoch)
            except ReadError as error:
                last = error
                info["failed_id"][row, attempt] = example_id
                info["failed_kind"][row, attempt] = KINDS.index(error.kind)
                example_id = self._order.replacement(number, row, attempt + 1)
            else:
                info["example_id"][row] = example_id
                return arrays
        raise RunError(
            f"{_ATTEMPTS} examples one after another could not be read, the last of them because "
            f"of {last.kind} ({last}): is the storage there? `python -m nlip_jax doctor` looks at "
            "a sample of the data"
        )


@contextlib.contextmanager
def open_batches(
    *, order: Stream | Pass, load: Loader, start: int, stop: int, reading: Reading
) -> Iterator[Iterator[dict[str, np.ndarray]]]:
    """Opens batches [start, stop) of this process's rows; closes workers and threads on exit.

    Args:
      order: which example is in which row.
      load: makes a row.
      start: first batch.
      stop: batch to stop before.
      reading: how.

    Yields:
      An iterator of dicts of arrays whose first dimension is this process's share of the batch;
      `take_row_info` takes out what is no input of a model.
    """
    batches = grain.MapDataset.source(_Batches(order=order, load=load, num_batches=stop))[start:]
    dataset = batches.to_iter_dataset(
        grain.ReadOptions(
            num_threads=min(reading.threads, reading.prefetch),
            prefetch_buffer_size=reading.prefetch,
        )
    )
    if reading.workers:
        if not flags.FLAGS.is_parsed():  # Grain reads absl flags, which notebooks never parse
            flags.FLAGS(["nlip_jax"])
        num_slots = reading.prefetch + _ON_THE_WAY if ring.is_available() else 0
        dataset = dataset.mp_prefetch(
            grain.MultiprocessingOptions(num_workers=reading.workers),
            worker_init_fn=functools.partial(_start_worker, num_slots=num_slots),
        )
        if num_slots:
            options = grain.experimental.DatasetOptions(min_shm_size=ring.LEAST_BYTES)
            dataset = grain.experimental.WithOptionsIterDataset(dataset, options)
    iterator = iter(dataset)
    try:
        yield _take_from_rings(iterator)
    finally:
        close = getattr(iterator, "close", None)
        if close is not None:
            close()


def _take_from_rings(
    batches: Iterator[dict[str, np.ndarray]],
) -> Iterator[dict[str, np.ndarray]]:
    reader = ring.Reader()
    try:
        for batch in batches:
            handle = batch.pop(ring.HANDLE, None)
            yield batch if handle is None else batch | reader.take(handle)
    except RuntimeError as error:
        if "Worker process was terminated" not in str(error):
            raise
        raise RunError(
            "a worker process that reads data was lost; if the system ended it for want of memory, "
            "lower config.data.workers or config.data.prefetch; the same command goes on from the "
            "last checkpoint"
        ) from error


def _start_worker(index: int, count: int, *, num_slots: int) -> None:
    global _ring  # noqa: PLW0603  # a worker process serves one pipeline
    del index, count
    die_with_parent()
    keep_freed_memory()
    _ring = ring.Ring(num_slots) if num_slots else None
