"""Checkpoints: the state of a run and what it takes to go on. The only importer of orbax.

A checkpoint is complete or does not exist: Orbax writes into a temporary folder and renames it.
Beside the arrays lies a JSON object with the resolved config, the position in the data and the
data's fingerprint, so that a checkpoint explains itself.
"""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import orbax.checkpoint as ocp

from nlip_jax import phases
from nlip_jax.errors import RunError
from nlip_jax.types import PyTree


@dataclasses.dataclass(frozen=True)
class Restored:
    """A checkpoint that was read.

    Attributes:
      state: pytree of arrays, sharded as asked for.
      meta: the JSON object saved beside it.
    """

    state: PyTree
    meta: dict[str, Any]


@dataclasses.dataclass
class _Preserved:
    """The checkpoints that stay; a preservation policy of Orbax.

    Attributes:
      newest: how many of the newest.
      before: steps; the newest checkpoint before each stays as well.
    """

    newest: int
    before: tuple[int, ...] = ()

    def should_preserve(self, checkpoints: Sequence[Any], *, context: Any) -> list[bool]:
        """Whether each checkpoint, from old to new, stays."""
        del context
        steps = [checkpoint.step for checkpoint in checkpoints]
        kept = set(steps[-self.newest :])
        for bound in self.before:
            kept.update([step for step in steps if step < bound][-1:])
        return [step in kept for step in steps]


# What Orbax raises for a checkpoint that is damaged, gone or of another structure.
_UNREADABLE = (ValueError, KeyError, OSError, TypeError)


class Checkpointer:
    """Writes and reads the checkpoints of one workdir.

    Args:
      directory: made if absent.
      keep: how many of the newest checkpoints stay.
      only_reads: nothing is saved, so another process may be at work there: what looks like the
        rest of a killed one is left alone, and the directory has to be there.
    """

    def __init__(self, directory: Path, *, keep: int = 2, only_reads: bool = False):
        self.directory = Path(directory).resolve()
        self._preserved = _Preserved(newest=keep)
        options = ocp.CheckpointManagerOptions(
            preservation_policy=self._preserved,
            cleanup_tmp_directories=not only_reads,
            create=not only_reads,
            enable_async_checkpointing=True,
        )
        self._manager = ocp.CheckpointManager(self.directory, options=options)

    def keep_before(self, steps: Sequence[int]) -> None:
        """Also keeps the newest checkpoint before each of these steps, and forgets others."""
        self._preserved.before = tuple(steps)

    def latest_step(self, *, before: int | None = None) -> int | None:
        """Step of the newest complete checkpoint (before some step), None where there is none."""
        steps = self._manager.all_steps()
        return max((step for step in steps if before is None or step < before), default=None)

    def save(self, step: int, *, state: PyTree, meta: dict[str, Any]) -> None:
        """Saves in the background; the arrays may be donated or changed once this returns."""
        if step in self._manager.all_steps():
            return
        phases.enter("checkpoint", step=step)
        self._manager.save(
            step,
            args=ocp.args.Composite(
                state=ocp.args.StandardSave(state), meta=ocp.args.JsonSave(meta)
            ),
            force=True,
        )
        phases.enter("checkpoint_in_background", step=step)

    def restore(self, step: int, *, abstract: PyTree) -> Restored:
        """Reads a checkpoint onto any mesh.

        Args:
          step: one of the saved steps.
          abstract: pytree of ShapeDtypeStructs with the shardings that are wanted.

        Raises:
          RunError: the checkpoint cannot be read into this structure.
        """
        try:
            restored = self._manager.restore(
                step,
                args=ocp.args.Composite(
                    state=ocp.args.StandardRestore(abstract), meta=ocp.args.JsonRestore()
                ),
            )
        except _UNREADABLE as error:
            raise RunError(
                f"{_cannot_restore(self.directory, step, error)}; "
                f"remove the folder {self.directory / str(step)} to go on from an earlier one"
            ) from error
        return Restored(state=_place(restored.state, abstract), meta=restored.meta)

    def wait(self) -> None:
        """Returns when the save in the background is on disk."""
        self._manager.wait_until_finished()

    def close(self) -> None:
        """Waits for a save and lets go of the background threads."""
        self._manager.close()


def saved_steps(directory: Path) -> list[int]:
    """Steps of the complete checkpoints of a workdir, ascending; empty where there are none.

    Args:
      directory: of the checkpoints, in which another process may be at work.
    """
    found = Path(directory).iterdir() if Path(directory).is_dir() else ()
    return sorted(int(path.name) for path in found if path.name.isdecimal())


def restore_part(directory: Path, step: int, *, abstract: dict[str, PyTree]) -> dict[str, PyTree]:
    """Reads some of the fields of the state in a checkpoint, and no byte of the others.

    Args:
      directory: of the checkpoints, in which another process may be at work.
      step: one of the saved steps.
      abstract: field of the state -> pytree of ShapeDtypeStructs with the shardings that are
        wanted, on any mesh.

    Raises:
      RunError: the checkpoint is gone, damaged, or has not these fields.
    """
    directory = Path(directory).resolve()
    options = ocp.CheckpointManagerOptions(
        cleanup_tmp_directories=False, create=False, enable_async_checkpointing=False
    )
    # A manager of its own: one has only one way to read an item.
    try:
        with ocp.CheckpointManager(directory, options=options) as manager:
            part = ocp.args.PyTreeRestore(
                item=abstract,
                restore_args=ocp.checkpoint_utils.construct_restore_args(abstract),
                partial_restore=True,
            )
            state = manager.restore(step, args=ocp.args.Composite(state=part)).state
        _check_found(state, abstract)
    except Exception as error:  # what fails while files vanish has no class of its own
        raise RunError(_cannot_restore(directory, step, error)) from error
    return _place(state, abstract)


def _cannot_restore(directory: Path, step: int, error: Exception) -> str:
    text = error.args[0] if isinstance(error, KeyError) and error.args else error  # unquoted
    reason = (str(text).strip() or type(error).__name__).splitlines()[0]
    return f"checkpoint {step} in {directory} cannot be restored ({reason})"


def _check_found(state: PyTree, abstract: PyTree) -> None:
    """Unlike a restore of all, one of a part hands back what it was asked with for what is not."""
    for (path, _), found in zip(
        jax.tree_util.tree_leaves_with_path(abstract), jax.tree.leaves(state), strict=True
    ):
        if not isinstance(found, jax.Array):
            name = jax.tree_util.keystr(path, simple=True, separator="/")
            raise KeyError(f"it has no {name}")


def _place(state: PyTree, abstract: PyTree) -> PyTree:
    """Arrays where they were asked for: Orbax may leave them on the host or on other devices."""
    return jax.tree.map(lambda a, s: jax.device_put(a, s.sharding), state, abstract)
