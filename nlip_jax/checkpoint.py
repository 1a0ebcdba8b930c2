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
        except (ValueError, KeyError, OSError, TypeError) as error:
            reason = (str(error).strip() or type(error).__name__).splitlines()[0]
            raise RunError(
                f"checkpoint {step} in {self.directory} cannot be restored ({reason}); "
                f"remove the folder {self.directory / str(step)} to go on from an earlier one"
            ) from error
        # Orbax may hand back arrays on the host or on other devices than asked for; the compiled
        # step accepts exactly one placement.
        state = jax.tree.map(lambda a, s: jax.device_put(a, s.sharding), restored.state, abstract)
        return Restored(state=state, meta=restored.meta)

    def wait(self) -> None:
        """Returns when the save in the background is on disk."""
        self._manager.wait_until_finished()

    def close(self) -> None:
        """Waits for a save and lets go of the background threads."""
        self._manager.close()
