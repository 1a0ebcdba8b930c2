"""Which checkpoints are evaluated, and in which order: the oldest first, for it vanishes first."""

import dataclasses
import time
from collections.abc import Callable
from pathlib import Path

from nlip_jax import config as configs
from nlip_jax.checkpoint import saved_steps
from nlip_jax.commands import workdir as workdirs
from nlip_jax.errors import RunError, UsageError

WAIT, END = -1, -2  # instead of a step


@dataclasses.dataclass
class Steps:
    """Decides on one process what all of them do next.

    Attributes:
      run: folder of the run, which may be going on.
      chosen: "latest", "all", "watch" or a number.
      timeout: seconds without a new checkpoint that end a watch with an error; 0: none.
      patience: seconds that a checkpoint may take to vanish.
      clock: for tests.
    """

    run: Path
    chosen: str
    timeout: float = 0.0
    patience: float = 10.0
    clock: Callable[[], float] = time.monotonic
    vanished: set[int] = dataclasses.field(default_factory=set)
    _pending: list[int] | None = None
    _since: float | None = None

    def next(self, done: list[int]) -> int:
        """A step, WAIT, or END.

        Args:
          done: steps that were evaluated.

        Raises:
          UsageError: no such checkpoint.
          RunError: no new one has appeared for too long.
        """
        return {"latest": self._latest, "all": self._all, "watch": self._watch}.get(
            self.chosen, self._one
        )(set(done) | self.vanished)

    def is_gone(self, step: int) -> bool:
        """Whether the run has removed a checkpoint that could not be read; it is then left out."""
        if self.chosen not in ("latest", "all", "watch"):
            return False
        # Files go one after the other, and their folder last.
        until = self.clock() + self.patience
        while step in self._saved():
            if self.clock() > until:
                return False
            time.sleep(0.1)
        self.vanished.add(step)
        return True

    def _saved(self) -> list[int]:
        return saved_steps(self.run / "checkpoints")

    def _any(self) -> list[int]:
        steps = self._saved()
        if not steps:
            raise UsageError(f"{self.run / 'checkpoints'} holds no checkpoint yet")
        return steps

    def _latest(self, left_out: set[int]) -> int:
        if self._pending is not None and not self.vanished & set(self._pending):
            return END
        self._pending = [self._any()[-1]]
        return END if self._pending[0] in left_out else self._pending[0]

    def _all(self, left_out: set[int]) -> int:
        if self._pending is None:
            self._pending = self._any()
        return next((step for step in self._pending if step not in left_out), END)

    def _one(self, left_out: set[int]) -> int:
        step = int(self.chosen)
        if step in left_out:
            return END
        if step not in self._any():
            raise UsageError(
                f"--step={step}: there is no such checkpoint; choose one of "
                f"{', '.join(map(str, self._saved()))}"
            )
        return step

    def _watch(self, left_out: set[int]) -> int:
        is_finished = self._is_finished()  # before a look at the checkpoints
        left = [step for step in self._saved() if step not in left_out]
        now = self.clock()
        if left or self._since is None:
            self._since = now
        if left:
            return left[0]
        if is_finished:
            return END
        if self.timeout and now - self._since > self.timeout:
            raise RunError(
                f"no new checkpoint in {self.run / 'checkpoints'} for {self.timeout:g} seconds, "
                "and the run has not finished: see to it, and watch again"
            )
        return WAIT

    def _is_finished(self) -> bool:
        config = configs.from_json((self.run / "config.json").read_text())  # it may be prolonged
        return workdirs.finished_results(config, self.run) is not None


class OneModel:
    """Stands for the checkpoints of a model that has none: its step is 0."""

    def next(self, done: list[int]) -> int:
        """0, or END."""
        return END if 0 in done else 0

    def is_gone(self, step: int) -> bool:
        """Never."""
        del step
        return False
