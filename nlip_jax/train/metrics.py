"""What a run writes down while it trains: metrics.jsonl, TensorBoard events, one progress line."""

import json
import math
import os
import sys
import time
from pathlib import Path

from tensorboardX import SummaryWriter

from nlip_jax.data.pipeline import Reading
from nlip_jax.files import json_text, write_atomically
from nlip_jax.train import stalls


class MetricsLog:
    """`metrics.jsonl` and TensorBoard events of one workdir; only one process has one.

    Each step stands once, whatever was killed and repeated: a resumed run cuts the file back to the
    step it resumed from.

    Args:
      workdir: of the run.
      resume_step: lines of later steps are dropped, and evaluations of this very step, which
        the resumed run makes again.
      tensorboard: whether to write events as well.
    """

    def __init__(self, workdir: Path, *, resume_step: int, tensorboard: bool):
        self.path = workdir / "metrics.jsonl"
        kept = [
            line
            for line in read_metrics(self.path)
            if line["step"] < resume_step
            or (line["step"] == resume_step and "train/loss" in line)
        ]
        write_atomically(self.path, "".join(json_text(line) + "\n" for line in kept).encode())
        self._file = self.path.open("a")
        self._events = (
            SummaryWriter(str(workdir / "tensorboard"), purge_step=resume_step + 1)
            if tensorboard
            else None
        )

    def write(self, step: int, values: dict[str, float]) -> None:
        """One line, and one TensorBoard scalar for each value that is finite."""
        self._file.write(json_text({"step": step, **values}) + "\n")
        self._file.flush()
        if self._events is not None:
            for name, value in values.items():
                if math.isfinite(value):
                    self._events.add_scalar(name, value, step)

    def close(self) -> None:
        """Flushes both."""
        self._file.close()
        if self._events is not None:
            self._events.close()


def read_metrics(path: Path) -> list[dict[str, float]]:
    """The complete lines of a metrics.jsonl; a line that was cut off by a kill is left out.

    What was no finite number is NaN again.
    """
    if not path.exists():
        return []
    lines = []
    for text in path.read_text().splitlines():
        try:
            line = json.loads(text)
        except json.JSONDecodeError:
            continue
        lines.append({name: math.nan if x is None else x for name, x in line.items()})
    return lines


class Progress:
    """The progress line: rewritten in place on a terminal, one line a report elsewhere.

    Args:
      total: steps of the run.
      batch_size: global.
      reading: how rows are read, for what is said about stalls.
      devices: that train together.
      peak_rate: examples/s at the peak of all devices, for MFU; None where it is not known.
      visible: False on all processes but the first, which only measure.
    """

    def __init__(
        self,
        *,
        total: int,
        batch_size: int,
        reading: Reading,
        devices: int = 1,
        peak_rate: float | None = None,
        visible: bool = True,
    ):
        self._total, self._batch_size, self._reading = total, batch_size, reading
        self._devices, self._peak_rate = devices, peak_rate
        self._visible, self._is_terminal = visible, sys.stderr.isatty()
        self._step = self._since = None
        self._told: set[str] = set()  # stages that were blamed
        self.data = stalls.DataTime()

    def start(self, step: int) -> None:
        """Starts the clock at a step: after compiling, and again after each long pause."""
        self._step, self._since, self.data = step, time.perf_counter(), stalls.DataTime()

    def report(self, step: int, *, loss: float) -> dict[str, float]:
        """Shows the line, with a sentence on a new stall; returns the speeds, named for the log."""
        seconds = max(time.perf_counter() - self._since, 1e-9)
        per_step = seconds / max(step - self._step, 1)
        rate = self._batch_size / per_step
        speeds = {
            "time/examples_per_second": rate,
            "time/examples_per_second_per_device": rate / self._devices,
            "time/step_seconds": per_step,
            "time/data_wait_share": self.data.share(seconds),
        }
        if self._peak_rate is not None:
            speeds["time/mfu"] = rate / self._peak_rate
        if self._visible:
            self._show(step, loss=loss, speeds=speeds)
            self._blame(seconds)
        self.start(step)
        return speeds

    def _show(self, step: int, *, loss: float, speeds: dict[str, float]) -> None:
        left = speeds["time/step_seconds"] * (self._total - step)
        mfu = f"MFU {speeds['time/mfu']:.1%}  " if "time/mfu" in speeds else ""
        text = (
            f"step {step}/{self._total}  loss {loss:.4f}  "
            f"{speeds['time/examples_per_second']:,.0f} examples/s "
            f"({speeds['time/examples_per_second_per_device']:,.0f}/device)  "
            f"{speeds['time/step_seconds']:.3g} s/step  {mfu}"
            f"data wait {speeds['time/data_wait_share']:.0%}  ETA {format_duration(left)}"
        )
        if self._is_terminal:
            sys.stderr.write("\r\x1b[K" + text + ("\n" if step == self._total else ""))
        else:
            sys.stderr.write(text + "\n")
        sys.stderr.flush()

    def _blame(self, seconds: float) -> None:
        stage = stalls.slow_stage(self.data) if self.data.is_stall(seconds) else None
        if stage is not None and stage not in self._told:
            cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else None
            text = stalls.explain(
                self.data,
                seconds=seconds,
                reading=self._reading,
                cores=cores or os.cpu_count() or 1,
            )
            self.say(text)
            self._told.add(stage)

    def say(self, text: str) -> None:
        """A line of its own between the progress lines."""
        if self._visible:
            sys.stderr.write(("\n" if self._is_terminal else "") + text + "\n")
            sys.stderr.flush()


def format_duration(seconds: float) -> str:
    """Such as 2h05m or 1m09s."""
    if not math.isfinite(seconds):
        return "?"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}h{minutes:02d}m" if hours else f"{minutes}m{rest:02d}s"
