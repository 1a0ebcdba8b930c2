"""What a run writes down of its spikes: `spikes.jsonl`, and a line on the terminal."""

import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from nlip_jax import sharding
from nlip_jax.errors import RunError
from nlip_jax.files import json_text, write_atomically
from nlip_jax.train.metrics import read_metrics
from nlip_jax.train.spikes import SpikePolicy

FILE = "spikes.jsonl"
_KEPT = 3  # newest spikes before which a checkpoint is kept


class SpikeLog:
    """The spikes of one run, known to all its processes and written by one.

    Each stands once, whatever was killed and repeated: a resumed run cuts the file back to the
    step it resumed from.

    Args:
      workdir: of the run.
      policy: what is done about spikes.
      rows: which rows of the global batch this process holds.
      batch_size: global.
      resume_step: lines of later steps are dropped.
      writes: whether this process writes the file.
    """

    def __init__(
        self,
        workdir: Path,
        *,
        policy: SpikePolicy,
        rows: np.ndarray,
        batch_size: int,
        resume_step: int,
        writes: bool,
    ) -> None:
        self.path, self.policy, self._writes = workdir / FILE, policy, writes
        self._rows, self._batch_size = rows, batch_size
        lines = read_metrics(self.path)
        kept = [line for line in lines if line["step"] <= resume_step]
        self._steps = [line["step"] for line in kept]
        if writes and lines:
            write_atomically(self.path, "".join(json_text(line) + "\n" for line in kept).encode())

    @property
    def newest(self) -> tuple[int, ...]:
        """Steps of the newest spikes, whose replay should start from a checkpoint nearby."""
        return tuple(self._steps[-_KEPT:])

    def add(
        self, step: int, metrics: Mapping[str, float], *, episode: int, example_ids: np.ndarray
    ) -> str:
        """Takes down a step, if it is a spike; all processes call it.

        Args:
          step: number of the step, from 1.
          metrics: what the compiled step told of it.
          episode: whose columns it has seen.
          example_ids: of this process's rows of the batch, as they were read.

        Returns:
          A line to print; empty if it is none.

        Raises:
          RunError: too many updates in a row were left out.
        """
        if not metrics["spike"]:
            return ""
        action = "skipped" if self.policy.skips else "recorded"
        self._steps.append(step)
        ids = sharding.rows_of_all(example_ids, rows=self._rows, batch_size=self._batch_size)
        if self._writes:
            line = self._describe(step, metrics) | {
                "episode": episode,
                "action": action,
                "example_ids": ids.tolist(),
            }
            with self.path.open("a") as file:
                file.write(json_text(line) + "\n")
        in_a_row = int(metrics.get("skipped_in_a_row", 0))
        if in_a_row > self.policy.max_skipped:
            raise RunError(
                f"the updates of steps {step - in_a_row + 1} to {step} were all left out as loss "
                f"spikes, more than config.spikes.max_skipped={self.policy.max_skipped} in a row: "
                f"look at one with {self._replay(step)}, or train again in another --workdir with "
                "a lower config.optimizer.learning_rate"
            )
        return (
            f"step {step}: loss {metrics['loss']:.4g} is a spike (z {metrics['loss_z']:.1f}, mean "
            f"{metrics['loss_mean']:.4g}, gradient norm {metrics['grad_norm']:.4g}), {action}; "
            f"see its batch with {self._replay(step)}"
        )

    def _describe(self, step: int, metrics: Mapping[str, float]) -> dict[str, Any]:
        """What was measured, as plain numbers."""
        names = {"loss": "loss", "mean": "loss_mean", "deviation": "loss_deviation", "z": "loss_z"}
        names |= {name: name for name in metrics if name.startswith("grad_norm")}
        return {"step": step} | {name: float(metrics[key]) for name, key in names.items()}

    def _replay(self, step: int) -> str:
        workdir = shlex.quote(str(self.path.parent))
        return f"`python -m nlip_jax replay --workdir={workdir} --step={step}`"
