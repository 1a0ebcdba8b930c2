"""Images per second of our pipeline and of those that others run, side by side."""

import dataclasses
import os
import subprocess
import sys
from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from typing import Any

import numpy as np

from nlip_jax.commands.benchmarks import data_contender, data_ours, data_tfdata, data_webdataset
from nlip_jax.commands.benchmarks.data_contender import Contender, Cost
from nlip_jax.commands.benchmarks.data_setting import Setting

OURS, HEADLINE = "ours", ((0.9, 1.0), 2)  # scale and workers of the numbers without a suffix
SCALES, WORKERS = ((0.9, 1.0), (0.08, 1.0)), (1, 2)


@dataclasses.dataclass(frozen=True)
class Entry:
    """A pipeline that takes part.

    Attributes:
      module: see `data_contender.start`.
      arguments: beside those of `Setting.arguments`.
      python: interpreter that runs it.
      headline_only: whether it is left out elsewhere, to save time.
    """

    module: str
    arguments: dict[str, Any]
    python: str = sys.executable
    headline_only: bool = False


def find_entries(setting: Setting) -> tuple[dict[str, Entry], dict[str, str]]:
    """The pipelines that can run here by name, and why others cannot."""
    shards = {"shards": list(setting.shards.paths)}
    entries = {OURS: Entry(data_ours.__name__, {"index": setting.index})}
    missing = {}
    if data_webdataset.HAS_WEBDATASET:
        output = "tensor" if data_webdataset.HAS_TORCH else "array"
        entries["webdataset"] = Entry(data_webdataset.__name__, {**shards, "output": output})
        if data_webdataset.HAS_TORCH:
            normalised = {**shards, "output": "normalised"}
            entries["open_clip"] = Entry(data_webdataset.__name__, normalised, headline_only=True)
    else:
        missing["webdataset"] = "webdataset is missing: pip install nlip_jax[test]"
    python = os.path.abspath(os.environ.get(data_tfdata.PYTHON_VARIABLE, sys.executable))
    if _imports(python, data_tfdata.NEEDS):
        records = {**shards, "records": str(setting.folder / "records")}
        entries["tfdata"] = Entry(data_tfdata.__name__, records, python)
    else:
        missing["tfdata"] = (
            f"{python} lacks one of {', '.join(data_tfdata.NEEDS)}; where they are in another "
            f"environment, name its interpreter in {data_tfdata.PYTHON_VARIABLE}"
        )
    return entries, missing


def compare(
    setting: Setting,
    *,
    scales: Iterable[tuple[float, float]] = SCALES,
    workers: Sequence[int] = WORKERS,
    rounds: int = 5,
    batches: int = 4,
) -> dict[str, float]:
    """Lets all pipelines take turns, at every scale and number of workers.

    Args:
      setting: what they read and make.
      scales: smallest and largest share of the area that a crop takes.
      workers: numbers of processes or threads.
      rounds: turns of each; the medians count.
      batches: of a turn, for each worker.

    Returns:
      Metrics by name.
    """
    entries, missing = find_entries(setting)
    for name, reason in missing.items():
        print(f"not compared with {name}: {reason}", file=sys.stderr)
    if "webdataset" in entries:
        print(f"webdataset runs with {data_webdataset.LOADER}", file=sys.stderr)
    numbers = {}
    for scale in scales:
        for count in workers:
            is_headline = (scale, count) == HEADLINE
            here = {n: e for n, e in entries.items() if is_headline or not e.headline_only}
            print(f"crops of scale {scale}, {count} workers: {', '.join(here)}", file=sys.stderr)
            costs = _race(
                setting, here, scale=scale, workers=count, rounds=rounds, batches=batches * count
            )
            found = summary(costs)
            path = f"data/scale_{scale[0]:g}/workers_{count}/"
            numbers |= {path + name: value for name, value in found.items()}
            if is_headline:
                numbers = {f"data/{name}": value for name, value in found.items()} | numbers
    return numbers


def take_turns(
    contenders: dict[str, Contender], *, rounds: int, batches: int
) -> dict[str, list[Cost]]:
    """The costs of every turn, by contender."""
    costs: dict[str, list[Cost]] = {name: [] for name in contenders}
    for turn in range(rounds):
        for name in list(contenders)[:: -1 if turn % 2 else 1]:
            costs[name].append(contenders[name].take(batches))
    return costs


def cpu_rate(costs: list[Cost]) -> float:
    """Images per CPU second, the median of the turns."""
    return float(np.median([cost.images / cost.cpu_seconds for cost in costs]))


def _race(
    setting: Setting,
    entries: dict[str, Entry],
    *,
    scale: tuple[float, float],
    workers: int,
    rounds: int,
    batches: int,
) -> dict[str, list[Cost]]:
    common = setting.arguments(scale=scale, workers=workers)
    with ExitStack() as stack:
        contenders = {
            name: stack.enter_context(
                data_contender.start(
                    entry.module,
                    {**common, **entry.arguments},
                    folder=setting.folder,
                    python=entry.python,
                )
            )
            for name, entry in entries.items()
        }
        return take_turns(contenders, rounds=rounds, batches=batches)


def summary(costs: dict[str, list[Cost]]) -> dict[str, float]:
    """Rates of everyone, and how many times those of the others ours are."""
    rates = {name: cpu_rate(turns) for name, turns in costs.items()}
    found = {}
    for name, turns in costs.items():
        prefix = "" if name == OURS else f"{name}_"
        wall = float(np.median([cost.images / cost.wall_seconds for cost in turns]))
        found[f"{prefix}images_per_second_per_core"] = rates[name]
        found[f"{prefix}images_per_second"] = wall
        if name != OURS:
            found[f"ratio_vs_{name}"] = rates[OURS] / rates[name]
    return found


def _imports(python: str, modules: Sequence[str]) -> bool:
    find = "import sys, importlib.util as i; sys.exit(None in map(i.find_spec, sys.argv[1:]))"
    try:
        return subprocess.run([python, "-c", find, *modules], check=False).returncode == 0
    except OSError:
        return False
