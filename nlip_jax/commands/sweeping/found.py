"""What the runs of a sweep have found so far, read from their folders."""

import dataclasses
import json
import math
from pathlib import Path

from nlip_jax.commands import workdir as workdirs
from nlip_jax.commands.sweeping.plan import Run, Sweep


@dataclasses.dataclass(frozen=True, kw_only=True)
class Clocked:
    """Where the time of a run went.

    Attributes:
      seconds: in all, stops of the run left out.
      pass_seconds: of them in passes over the data set between two stages of training, such as
        those for losses, concepts and captions.
    """

    seconds: float
    pass_seconds: float


@dataclasses.dataclass(frozen=True, kw_only=True)
class Finished:
    """A run that is done.

    Attributes:
      results: the numbers that the sweep asks for, by name.
      clocked: where its time went.
      step: its length.
      data: fingerprint of what it was trained on.
    """

    results: dict[str, float]
    clocked: Clocked
    step: int
    data: str


def read_finished(folder: Path, sweep: Sweep) -> dict[Run, Finished]:
    """All runs of a sweep that are finished, in the order of its arms.

    Args:
      folder: of the sweep.
      sweep: whose runs are looked for.

    Raises:
      UsageError: a file of a run is damaged.
    """
    found = {}
    for arm in sweep.arms:
        for seed in sweep.seeds:
            run = sweep.run(arm, seed)
            finished = _read_run(run.workdir(folder), sweep)
            if finished is not None:
                found[run] = finished
    return found


def read_clock(path: Path) -> Clocked:
    """Reads an events.jsonl: each line is the beginning of what lasts until the next one.

    What passes before a "start" is the time in which a stopped run lay still.
    """
    seconds = passes = 0.0
    before, refreshing = None, False
    for line in _lines(path):
        if before is not None and line["phase"] != "start":
            lasted = max(line["time"] - before, 0.0)
            seconds += lasted
            passes += lasted if refreshing else 0.0
        before = line["time"]
        if line["phase"] in ("refresh", "train", "start"):
            refreshing = line["phase"] == "refresh"
    return Clocked(seconds=seconds, pass_seconds=passes)


def read_last_step(path: Path) -> dict[str, float]:
    """The last line of a metrics.jsonl that tells of training; empty where there is none yet."""
    for line in reversed(_lines(path)):
        if "train/loss" in line:
            return line
    return {}


def _read_run(workdir: Path, sweep: Sweep) -> Finished | None:
    results = workdirs.read_json(workdir / "results.json")
    if not results:
        return None
    wanted = [*sweep.headlines, *sweep.others]
    known = {name: results[name] for name in wanted if name in results}
    return Finished(
        results={name: math.nan if x is None else float(x) for name, x in known.items()},
        clocked=read_clock(workdir / "events.jsonl"),
        step=int(results["step"]),
        data=workdirs.read_json(workdir / "data.json").get("fingerprint", ""),
    )


def _lines(path: Path) -> list[dict]:
    """The complete lines of a file of JSON; one that a kill has cut off is left out."""
    lines = []
    for text in path.read_text().splitlines() if path.exists() else ():
        try:
            lines.append(json.loads(text))
        except ValueError:
            continue
    return lines
