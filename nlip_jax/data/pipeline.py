"""The Grain pipeline: batches of this process's rows, in order, from any batch on.

There is no state to save: a batch is a function of its number (see `order.py`), so a run resumes
by opening the pipeline at the batch it wants. With `workers > 0` rows are made in processes.
"""

import contextlib
import dataclasses
from collections.abc import Iterator

import grain
import numpy as np
from absl import flags

from nlip_jax.data.loading import Loader
from nlip_jax.data.order import Block, Pass, Stream
from nlip_jax.data.worker_process import die_with_parent

_BLOCKS = 64  # kept at hand; more than the threads that work on different batches at once


@dataclasses.dataclass(frozen=True)
class Reading:
    """How rows are read; none of it changes what they are.

    Attributes:
      workers: Grain worker processes; 0 reads in threads of this process.
      threads: threads that make batches, in this process or in each worker; 0 makes each batch
        when it is asked for.
      prefetch: batches made ahead.
    """

    workers: int = 0
    threads: int = 2
    prefetch: int = 4


class _Rows:
    """Row number of this process -> arrays; what Grain sees as its data source."""

    def __init__(self, *, order: Stream | Pass, load: Loader, num_batches: int):
        self._order, self._load, self._num_batches = order, load, num_batches
        self._share = len(order.rows)
        self._blocks: dict[int, Block] = {}

    def __len__(self) -> int:
        return self._num_batches * self._share

    def __getitem__(self, index: int) -> dict[str, np.ndarray]:
        batch, row = divmod(int(index), self._share)
        block = self._blocks.get(batch)
        if block is None:  # threads may compute it twice; the result is the same
            block = self._order.block(batch)
            for old in sorted(self._blocks)[:-_BLOCKS]:
                self._blocks.pop(old, None)
            self._blocks[batch] = block
        example_id = int(block.ids[row])
        arrays = self._load(example_id, int(block.epochs[row]))
        return {**arrays, "example_id": np.int64(example_id), "valid": block.valid[row]}


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
      An iterator of dicts of arrays whose first dimension is this process's share of the batch.
    """
    rows = _Rows(order=order, load=load, num_batches=stop)
    share = len(order.rows)
    # Batched before it becomes a stream: Grain hands whole elements to threads and workers, so a
    # batch has the same rows however many there are.
    batches = grain.MapDataset.source(rows)[start * share : stop * share].batch(share)
    dataset = batches.to_iter_dataset(
        grain.ReadOptions(
            num_threads=min(reading.threads, reading.prefetch),
            prefetch_buffer_size=reading.prefetch,
        )
    )
    if reading.workers:
        if not flags.FLAGS.is_parsed():  # Grain reads absl flags, which notebooks never parse
            flags.FLAGS(["nlip_jax"])
        dataset = dataset.mp_prefetch(
            grain.MultiprocessingOptions(num_workers=reading.workers),
            worker_init_fn=_start_worker,
        )
    iterator = iter(dataset)
    try:
        yield iterator
    finally:
        close = getattr(iterator, "close", None)
        if close is not None:
            close()


def _start_worker(index: int, count: int) -> None:
    del index, count
    die_with_parent()
