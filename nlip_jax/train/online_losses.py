"""Losses that training saw of each pair, kept on disk for estimates of noise without a pass.

A step computes the loss of every pair of its batch anyway. Each process appends those of its rows
to *fragments*, 8 bytes a row; `recent_losses.py` reads them. A killed run finds in them what it had
seen: they are on disk before the checkpoint of their step, and those of later steps are removed
when it goes on.
"""

import dataclasses
import os
import re
from collections.abc import Sequence
from pathlib import Path

import jax
import numpy as np
from jax.experimental import multihost_utils

from nlip_jax import sharding

METRIC = "pair_loss"  # what a step calls them

_ROWS = 1 << 22  # of a process in memory, before they are written even without a checkpoint
_NAME = re.compile(r"steps-(\d+)-(\d+)-of-(\d+)\.npz")


@dataclasses.dataclass(frozen=True)
class Fragment:
    """A file of losses.

    Attributes:
      path: where it lies.
      first: step of its first losses.
      last: step of its last losses; it knows of all steps between.
    """

    path: Path
    first: int
    last: int


class OnlineLosses:
    """The losses of one run, as one process sees and writes them.

    Args:
      directory: of the fragments of all processes.
      windows: steps [start, stop) that each estimate looks at, ascending; others are not kept.
      num_ids: of the data set.
      resume_step: of the checkpoint the run goes on from; fragments of later steps are removed.
    """

    def __init__(
        self, directory: Path, *, windows: Sequence[range], num_ids: int, resume_step: int
    ) -> None:
        self._directory, self._windows = directory, tuple(windows)
        self._dtype = np.uint32 if num_ids <= 1 << 32 else np.uint64
        self._steps: list[int] = []
        self._ids: list[np.ndarray] = []
        self._losses: list[np.ndarray] = []
        self._saved = (resume_step, resume_step)  # the checkpoints of which one is on disk
        directory.mkdir(parents=True, exist_ok=True)
        if jax.process_index() == 0:
            for fragment in fragments(directory):
                if fragment.last > resume_step:
                    fragment.path.unlink()
            for rest in directory.glob("*.tmp"):
                rest.unlink()
        if jax.process_count() > 1:
            multihost_utils.sync_global_devices(f"open {directory}")

    def add(self, step: int, *, ids: np.ndarray, told: dict[str, jax.Array]) -> None:
        """Takes down the losses of a step; those that are not finite say nothing and are left out.

        Args:
          step: its number, from 1; higher at each call.
          ids: `[k]` examples in the rows of this process.
          told: of `[b]` rows of all processes, split by row; `METRIC` is the only one that is kept.
        """
        if not any(step in window for window in self._windows):
            return
        losses = sharding.to_host(told[METRIC]).astype(np.float32, copy=False)
        finite = np.isfinite(losses)
        self._steps.append(step)
        self._ids.append(ids[finite].astype(self._dtype))
        self._losses.append(losses[finite])
        # By rows that were read, not by those kept: so all processes write at the same steps.
        if len(self._steps) * len(ids) >= _ROWS:
            self._write()

    def flush(self, step: int) -> None:
        """Writes what there is, before the checkpoint of a step; removes what nobody asks for.

        The losses of an estimate stay until two checkpoints after it were begun: then one of them
        is on disk, and no run goes on from before the estimate.
        """
        self._write()
        if jax.process_index() == 0:
            wanted = [w for w in self._windows if w.stop - 1 >= self._saved[0]]
            for fragment in fragments(self._directory):
                if not any(fragment.first < w.stop and w.start <= fragment.last for w in wanted):
                    fragment.path.unlink()
        self._saved = (self._saved[1], step)

    def _write(self) -> None:
        """One fragment; complete or not at all."""
        if not self._steps:
            return
        first, last = self._steps[0], self._steps[-1]
        name = f"steps-{first:010d}-{last:010d}-of-{jax.process_index():05d}.npz"
        path = self._directory / name
        temporary = path.with_suffix(".tmp")
        with temporary.open("wb") as file:
            np.savez(
                file,
                steps=np.array(self._steps, np.int64),
                rows=np.array([len(ids) for ids in self._ids], np.int64),
                ids=np.concatenate(self._ids),
                losses=np.concatenate(self._losses),
            )
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
        self._steps, self._ids, self._losses = [], [], []


def fragments(directory: Path) -> list[Fragment]:
    """Those of all processes, by their first step."""
    found = []
    for path in directory.glob("*.npz"):
        if name := _NAME.fullmatch(path.name):
            found.append(Fragment(path, first=int(name[1]), last=int(name[2])))
    return sorted(found, key=lambda fragment: (fragment.first, fragment.path.name))
