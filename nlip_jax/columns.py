"""Columns: what a run has learned of each example, in files keyed by `example_id`.

A column NAME at version V is the folder `columns/NAME/V/`. While a pass over the data runs, every
process appends *fragments* (ids, values) to it; at the end they are merged into dense parts, one
range of ids a process, and the file DONE makes the version valid. Versions are immutable.
A killed pass finds its own fragments again: each carries the key of the pass that wrote it.
"""

import dataclasses
import json
import os
import shutil
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils

from nlip_jax import phases
from nlip_jax.errors import RunError, UsageError
from nlip_jax.files import write_atomically


@dataclasses.dataclass(frozen=True)
class ColumnVersion:
    """One version of one column, finished or in the making.

    Attributes:
      directory: where it lies.
      key: identifies the computation (parameters, data, code); others' fragments are not reused.
      made_for: what the ids of its values mean, as plain data (the fields of a source's
        `Numbering`); recorded for those who use the column elsewhere.
    """

    directory: Path
    key: str
    made_for: dict[str, Any] | None = None

    @property
    def is_done(self) -> bool:
        """Whether the values are complete and belong to this key."""
        done = self.directory / "DONE"
        return done.exists() and json.loads(done.read_text())["key"] == self.key

    def meta(self) -> dict[str, Any]:
        """What was stored beside the values."""
        self._check_done()
        return json.loads((self.directory / "DONE").read_text())["meta"]

    def read(self) -> np.ndarray:
        """The values of all examples, `[n]`, memory-mapped where one process wrote them."""
        self._check_done()
        paths = sorted(self.directory.glob("part-*-of-*.npy"))
        parts = [np.load(path, mmap_mode="r") for path in paths]
        return parts[0] if len(parts) == 1 else np.concatenate(parts)

    def _check_done(self) -> None:
        paths = sorted(self.directory.glob("part-*-of-*.npy"))
        complete = paths and len(paths) == int(paths[0].stem[-5:])
        if not complete or not (self.directory / "DONE").exists():
            raise RunError(
                f"the column {self.directory} lost files: bring them back; or remove its folder "
                "and all checkpoints from after it was made, so that it is made again; or choose "
                "another --workdir"
            )

    # --- fragments ------------------------------------------------------------------------------
    def prepare(self) -> None:
        """Makes the folder; clears away what another computation left in it."""
        if jax.process_index() == 0:
            key_file = self.directory / "KEY"
            if self.directory.exists() and (
                not key_file.exists() or key_file.read_text() != self.key
            ):
                shutil.rmtree(self.directory)
            self.directory.mkdir(parents=True, exist_ok=True)
            write_atomically(key_file, self.key.encode())
        _barrier(f"prepare {self.directory}")

    def num_own_fragments(self) -> int:
        """Finished fragments of this process; it writes them in the order of their indices."""
        return sum(1 for _ in self.directory.glob(f"fragment-{jax.process_index():05d}-*.npz"))

    def fragments(self) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Finished fragments of all processes as (ids, values)."""
        for path in sorted(self.directory.glob("fragment-*.npz")):
            with np.load(path) as arrays:
                yield arrays["ids"], arrays["values"]

    def append(self, index: int, *, ids: np.ndarray, values: np.ndarray) -> None:
        """Writes fragment `index` of this process; complete or not at all."""
        path = self.directory / f"fragment-{jax.process_index():05d}-{index:08d}.npz"
        temporary = path.with_suffix(".tmp")
        with temporary.open("wb") as file:
            np.savez(file, ids=ids, values=values)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)

    def merge(
        self,
        *,
        num_examples: int,
        present: Callable[[int, int], np.ndarray],
        meta: dict[str, Any] | None = None,
    ) -> None:
        """Turns the fragments of all processes into dense parts and marks the version valid.

        Args:
          num_examples: n, number of ids.
          present: (start, stop) -> `[stop - start]` bool, the ids that must have come exactly
            once; the others get NaN, or 0 where the values are no floats.
          meta: plain data to keep beside the values.

        Raises:
          RunError: ids are missing or came twice.
        """
        _barrier(f"fragments of {self.directory}")
        phases.enter("column_merge", column=self.directory.parent.name)
        start, stop = own_range(num_examples)
        dense, seen = None, np.zeros(stop - start, np.int32)
        for ids, values in self.fragments():
            mine = (ids >= start) & (ids < stop)
            if dense is None:
                nothing = np.nan if np.issubdtype(values.dtype, np.floating) else 0
                dense = np.full((stop - start, *values.shape[1:]), nothing, values.dtype)
            dense[ids[mine] - start] = values[mine]
            np.add.at(seen, ids[mine] - start, 1)
        expected = present(start, stop)
        if not (seen == expected).all():
            raise RunError(
                f"the pass that fills {self.directory} gave {int((seen < expected).sum())} "
                f"examples no value and {int((seen > expected).sum())} one too many; remove the "
                "folder and run again"
            )
        self.write_dense(dense, meta=meta)

    def write_dense(self, own_values: np.ndarray, *, meta: dict[str, Any] | None = None) -> None:
        """Writes this process's range of values and marks the version valid, DONE last."""
        self.directory.mkdir(parents=True, exist_ok=True)
        part = f"part-{jax.process_index():05d}-of-{jax.process_count():05d}.npy"
        temporary = self.directory / (part + ".tmp")
        with temporary.open("wb") as file:
            np.save(file, own_values)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(self.directory / part)
        _barrier(f"parts of {self.directory}")
        phases.enter("column_before_done", column=self.directory.parent.name)
        if jax.process_index() == 0:
            for stale in self.directory.glob("part-*.npy"):
                if not stale.stem.endswith(f"-of-{jax.process_count():05d}"):
                    stale.unlink()
            done = {"key": self.key, "made_for": self.made_for, "meta": meta or {}}
            write_atomically(self.directory / "DONE", json.dumps(done).encode())
            for fragment in self.directory.glob("fragment-*"):
                fragment.unlink()
        _barrier(f"done {self.directory}")
        phases.enter("column_after_done", column=self.directory.parent.name)


def read_column(directory: Path, *, numberings: Iterable[dict[str, Any]]) -> np.ndarray:
    """The values of a finished column that another run made, perhaps before shards were added.

    Args:
      directory: of one version, such as runs/first/columns/noise_prob/0001.
      numberings: of the data in use, as `made_for` has them: what ids mean now and meant before
        shards were appended.

    Returns:
      `[m]` values of the first m examples.

    Raises:
      UsageError: no finished column lies there, or one of other data.
    """
    try:
        done = json.loads((directory / "DONE").read_text())
    except (OSError, ValueError) as error:
        found = sorted(path.parent for path in directory.glob("**/DONE"))
        hint = f"; there is {found[-1]}" if found else ""
        raise UsageError(f"{directory} holds no finished column{hint}") from error
    if done.get("made_for") not in tuple(numberings):
        raise UsageError(
            f"the column {directory} was made for other data ({done.get('made_for')}), where the "
            "same ids mean other examples: make it anew for this data"
        )
    return ColumnVersion(directory=directory, key=done["key"]).read()


def own_range(num_examples: int) -> tuple[int, int]:
    """The ids [start, stop) whose values in a dense column this process writes."""
    edges = np.linspace(0, num_examples, jax.process_count() + 1).astype(np.int64)
    return int(edges[jax.process_index()]), int(edges[jax.process_index() + 1])


def own_share(values: np.ndarray) -> np.ndarray:
    """The range of a dense column that this process writes."""
    start, stop = own_range(len(values))
    return values[start:stop]


def _barrier(name: str) -> None:
    if jax.process_count() > 1:
        multihost_utils.sync_global_devices(name)
