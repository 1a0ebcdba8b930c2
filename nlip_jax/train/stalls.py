"""Why the devices waited for data: the slow stage, by name, and what to change."""

import dataclasses
import math
import time
from concurrent.futures import Future, ThreadPoolExecutor

import jax
import numpy as np

from nlip_jax.data.loading import STAGES
from nlip_jax.data.pipeline import Reading
from nlip_jax.types import PyTree

# A stall that is worth a word: this share of the time, and so many seconds.
SHARE, SECONDS = 0.1, 0.5

_REMEDIES = {
    "read": "move the shards to a faster disk or, if they are remote, set "
    "config.data.storage.cache_dir",
    "decode": "store smaller images once (python -m nlip_jax prepare --max_side=...)",
    "augment": "turn costly operations of config.data.augment off",
    "tokenise": "raise config.data.threads, or use another config.tokenizer.name",
}


class DeviceWatch:
    """Notices when the devices have finished the last step, whatever the loop does meanwhile.

    The host runs ahead of the devices: that it waits for a batch does not mean that they do.
    """

    def __init__(self) -> None:
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="device-watch")
        self._finished: Future[float] | None = None

    def follow(self, result: PyTree) -> None:
        """A step was started, with these arrays as its result."""
        self._finished = self._thread.submit(_finish, result)

    def idle(self, begin: float, end: float) -> float:
        """Seconds between two moments of the past in which the devices had no step to work on.

        0 until the first step: the start of worker processes is no stall.
        """
        if self._finished is None or not self._finished.done():
            return 0.0
        return max(0.0, end - max(begin, self._finished.result()))

    def close(self) -> None:
        """Lets go of the thread."""
        self._thread.shutdown(wait=False, cancel_futures=True)


def _finish(result: PyTree) -> float:
    jax.block_until_ready(result)
    return time.perf_counter()


@dataclasses.dataclass
class DataTime:
    """Where the time of the data went since the last report, in seconds.

    Attributes:
      waited: for the next batch, by the devices.
      copied: from host to devices, while these had nothing else to do.
      stages: `[stages]` spent by all threads and workers on the rows, by `STAGES`.
    """

    waited: float = 0.0
    copied: float = 0.0
    stages: np.ndarray = dataclasses.field(default_factory=lambda: np.zeros(len(STAGES)))

    def add(self, *, waited: float, copied: float, stages: np.ndarray) -> None:
        """Adds one batch."""
        self.waited += waited
        self.copied += copied
        self.stages = self.stages + stages

    def is_stall(self, seconds: float) -> bool:
        """Whether the wait in some seconds is worth a word."""
        return self.share(seconds) > SHARE and self.waited + self.copied >= SECONDS

    def share(self, seconds: float) -> float:
        """Part of some seconds in which the devices had no batch."""
        return min(1.0, (self.waited + self.copied) / seconds)


def slow_stage(time: DataTime) -> str:
    """The stage that the wait is due to: "copy", or one of `STAGES`."""
    if time.copied > time.waited:
        return "copy"
    return STAGES[int(np.argmax(time.stages))]


def explain(time: DataTime, *, seconds: float, reading: Reading, cores: int) -> str:
    """One sentence on a stall.

    Args:
      time: since the last report.
      seconds: since the last report.
      reading: how rows are read.
      cores: of this host.
    """
    stage, share = slow_stage(time), time.share(seconds)
    begun = f"the devices waited for data {share:.0%} of the time; "
    if stage == "copy":
        return begun + (
            "most of it went into copying batches to them: use smaller images, or a smaller "
            "batch on each host"
        )
    if not time.stages.any():
        return begun + "rows came slowly: raise config.data.threads or config.data.workers"
    total = time.stages.sum()
    begun += f"the slow stage is {stage} ({time.stages.max() / total:.0%} of making a row): "
    busy = max(seconds - time.waited - time.copied, 1e-9)
    needed, lanes = math.ceil(total / busy), reading.workers or 1
    if lanes < min(cores, needed):
        first = "set config.data.cache to 'none' and " if reading.in_memory else ""
        return begun + first + (
            f"raise config.data.workers from {reading.workers} to "
            f"{min(cores, needed)} (this host has {cores} cores)"
        )
    return begun + (
        f"all {cores} cores are in use where about {needed} are needed: {_REMEDIES[stage]}"
        if needed > cores
        else _REMEDIES[stage]
    )
