"""What the data plane costs a host beside decoding: copies, memory, and time to start."""

import time

import numpy as np

from nlip_jax.commands.benchmarks import data_contender, data_ours, data_speed
from nlip_jax.commands.benchmarks.data_setting import Setting
from nlip_jax.data.members import Ranges
from nlip_jax.data.order import Epochs, Stream
from nlip_jax.data.pipeline import Reading, open_batches

_SCALE = (0.9, 1.0)


def overhead(setting: Setting, *, rounds: int = 5, batches: int = 16) -> dict[str, float]:
    """CPU time from workers to device, as a share of that of making the rows.

    One pipeline ends on the device; the other makes the same rows in one thread and forgets them.
    The difference is Grain, batching, the copies between processes and that to the device.

    Args:
      setting: what is read and made.
      rounds: turns of each; the medians count.
      batches: of a turn; many, because slots cost more the first time they are written to, and
        every turn ends with some waiting.
    """
    common = setting.arguments(scale=_SCALE, workers=1) | {"index": setting.index}
    where = {"folder": setting.folder}
    with (
        data_contender.start(data_ours.__name__, common | {"until": "rows"}, **where) as rows,
        data_contender.start(data_ours.__name__, common | {"until": "device"}, **where) as device,
    ):
        both = {"rows": rows, "device": device}
        costs = data_speed.take_turns(both, rounds=rounds, batches=batches)
    share = data_speed.cpu_rate(costs["rows"]) / data_speed.cpu_rate(costs["device"]) - 1
    return {"data/host_overhead_share": share}


def memory_growth(
    setting: Setting, *, first: int = 10_000, last: int = 100_000
) -> dict[str, float]:
    """How much more memory a worker has after `last` examples than after `first`, in MB.

    The largest growth of any process, the one that takes the batches included.
    """
    arguments = setting.arguments(scale=_SCALE, workers=1) | {"index": setting.index}
    with data_contender.start(data_ours.__name__, arguments, folder=setting.folder) as ours:
        ours.take(first // setting.batch_size)
        before = ours.memory_bytes()
        ours.take((last - first) // setting.batch_size)
        after = ours.memory_bytes()
    growth = max(after[process] - before[process] for process in before)
    return {"data/worker_memory_growth_mb": growth / 1e6}


def first_id(*, num_examples: int = 1_800_000_000, batch_size: int = 256) -> dict[str, float]:
    """Seconds from nothing to the first batch of ids of a shuffled order, without workers."""
    begun = time.perf_counter()
    order = Stream(
        draw=Epochs(Ranges(num_examples)),
        batch_size=batch_size,
        seed=0,
        rows=np.arange(batch_size),
    )
    reading = Reading(workers=0, threads=0)
    with open_batches(order=order, load=_nothing, start=0, stop=1, reading=reading) as batches:
        next(batches)
    return {"data/order_first_id_seconds": time.perf_counter() - begun}


def _nothing(example_id: int, epoch: int) -> dict[str, np.ndarray]:
    """A row of an id alone."""
    del example_id, epoch
    return {}
