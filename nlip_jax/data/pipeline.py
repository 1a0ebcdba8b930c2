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

from nlip_jax.data.failures import KINDS, ReadError
from nlip_jax.data.loading import STAGES, Loader
from nlip_jax.data.order import Block, Pass, Stream
from nlip_jax.data.worker_process import die_with_parent
from nlip_jax.errors import RunError

_BLOCKS = 64  # kept at hand; more than the threads that work on different batches at once
_ATTEMPTS = 8  # examples tried for one row


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
        return {**self._read(batch, row, block), "valid": block.valid[row]}

    def _read(self, batch: int, row: int, block: Block) -> dict[str, np.ndarray]:
        """The row's example, or the first of its replacements that can be read."""
        example_id, epoch = int(block.ids[row]), int(block.epochs[row])
        failed_id = np.full(_ATTEMPTS, -1, np.int64)
        failed_kind = np.zeros(_ATTEMPTS, np.int8)
        for attempt in range(_ATTEMPTS):
            try:
                arrays = self._load(example_id, epoch)
            except ReadError as error:
                failed_id[attempt], failed_kind[attempt] = example_id, KINDS.index(error.kind)
                last = error
                example_id = self._order.replacement(batch, row, attempt + 1)
            else:
                known = {"failed_id": failed_id, "failed_kind": failed_kind}
                return {**arrays, **known, "example_id": np.int64(example_id)}
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
