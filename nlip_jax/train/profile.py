"""A trace of a few steps as XLA ran them: where the time of a step goes."""

import dataclasses
import re
from collections.abc import Callable
from pathlib import Path

import jax

from nlip_jax.errors import UsageError
from nlip_jax.types import PyTree


@dataclasses.dataclass(frozen=True)
class Trace:
    """What to trace: steps `first` to `last`, both of them included, counted from 1.

    Attributes:
      first: step.
      last: step.
      folder: of the trace.
    """

    first: int
    last: int
    folder: Path

    def __str__(self) -> str:
        return f"--profile={self.first}..{self.last}"


def parse_trace(text: str, *, folder: Path) -> Trace | None:
    """The value of `--profile`, "A..B"; None where it is empty.

    Raises:
      UsageError: it is no such range.
    """
    if not text:
        return None
    match = re.fullmatch(r"(\d+)\.\.(\d+)", text)
    if match is None or not 1 <= int(match[1]) <= int(match[2]):
        raise UsageError(
            f"--profile={text}: write the first and the last step to trace, counted from 1, "
            "such as --profile=20..25"
        )
    return Trace(int(match[1]), int(match[2]), folder)


def check_trace(trace: Trace | None, *, total: int) -> None:
    """Refuses steps after the end of the run.

    Raises:
      UsageError: naming the steps and the length of the run.
    """
    if trace is not None and trace.last > total:
        raise UsageError(f"{trace}: the run has {total} steps")


class Profiler:
    """Marks every step for whoever listens, and makes the trace.

    Args:
      trace: to make; None for none.
      start: steps that are done already.
      say: shows a line to the user.
    """

    def __init__(self, trace: Trace | None, *, start: int, say: Callable[[str], None]):
        self._trace, self._say = trace, say
        self._begun: int | None = None  # first step of a trace that is being made
        self._done, self._results = start, None
        if trace is not None and trace.first <= start:
            say(f"{trace}: steps up to {start} are done already and cannot be traced")

    def step(self, step: int) -> jax.profiler.StepTraceAnnotation:
        """Goes around the work of a step, which bears its name in the trace."""
        trace = self._trace
        if self._begun is None and trace is not None and trace.first <= step <= trace.last:
            jax.block_until_ready(self._results)  # of the steps before
            options = jax.profiler.ProfileOptions()
            options.python_tracer_level = 0  # or every call of a function would take longer
            jax.profiler.start_trace(trace.folder, profiler_options=options)
            self._begun = step
        return jax.profiler.StepTraceAnnotation("train", step_num=step)

    def end_step(self, step: int, results: PyTree) -> bool:
        """The devices were given a step: after the last one, ends the trace when they are done.

        Args:
          step: of `step`.
          results: arrays that are ready when the step is.

        Returns:
          Whether a trace was written, which takes a while.
        """
        self._done, self._results = step, results
        ends = self._begun is not None and step == self._trace.last
        if ends:
            jax.block_until_ready(results)
            self.close()
        return ends

    def close(self) -> None:
        """Writes a trace that is being made, wherever the run ends."""
        if self._begun is None:
            return
        jax.profiler.stop_trace()
        folder = self._trace.folder
        self._say(
            f"a trace of steps {self._begun} to {max(self._begun, self._done)} is in {folder}; "
            f"look at it with `pip install xprof && xprof --logdir={folder}`, or drop its "
            "*.trace.json.gz on https://ui.perfetto.dev"
        )
        self._begun = None
