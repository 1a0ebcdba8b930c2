"""What a sweep has found so far: flat numbers for a file, a table for people."""

import math
from collections.abc import Mapping
from typing import Any

from nlip_jax.commands.sweeping.found import Finished
from nlip_jax.commands.sweeping.plan import Run, Sweep
from nlip_jax.commands.sweeping.statistics import Spread, shares_closed, spread
from nlip_jax.report.formats import format_seconds, format_value, is_score, is_share


def summary(sweep: Sweep, finished: Mapping[Run, Finished]) -> dict[str, Any]:
    """All numbers of a sweep, flat.

    Args:
      sweep: whose runs they are.
      finished: those that are done.

    Returns:
      `runs/ARM/SEED/NAME` of each run: results, seconds, steps, the fingerprint of its data; then
      `arms/ARM/NAME_mean`, `_spread` (sample standard deviation over seeds) and `_seeds` of each
      arm, where NAME may end in `_closed`: the share of the gap that it closes.
    """
    numbers: dict[str, Any] = {}
    for run, done in finished.items():
        values = done.results | {
            "step": done.step,
            "data": done.data,
            "time/seconds": done.clocked.seconds,
            "time/pass_seconds": done.clocked.pass_seconds,
        }
        numbers |= {f"runs/{run.arm}/{run.seed}/{name}": value for name, value in values.items()}
    for arm in sweep.arms:
        for name, values in _by_seed(sweep, finished, arm).items():
            if values:
                found = spread(values.values())
                numbers |= {
                    f"arms/{arm}/{name}_mean": found.mean,
                    f"arms/{arm}/{name}_spread": found.deviation,
                    f"arms/{arm}/{name}_seeds": found.count,
                }
    return numbers


def table(sweep: Sweep, finished: Mapping[Run, Finished]) -> str:
    """The arms as a table in Markdown, with a note on what stands in it.

    Args:
      sweep: whose runs they are.
      finished: those that are done; what no run of an arm has is left empty.
    """
    found = {arm: _by_seed(sweep, finished, arm) for arm in sweep.arms}
    columns = {name: label for name, label in _columns(sweep).items() if _is_known(name, found)}
    rows = [["", "seeds", *columns.values()]]
    for arm, label in sweep.arms.items():
        count = sum(run.arm == arm for run in finished)
        cells = [_cell(name, found[arm].get(name, {})) for name in columns]
        rows.append([label, str(count), *cells])
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    rows.insert(1, ["-" * width for width in widths])
    lines = ["| " + " | ".join(map(str.ljust, row, widths)) + " |" for row in rows]
    return "\n".join([*lines, "", _note(sweep, finished)])


def headline_texts(sweep: Sweep, done: Finished) -> str:
    """The headlines of one run, in a line."""
    return ", ".join(
        f"{label} {format_value(name, done.results[name])}"
        for name, label in sweep.headlines.items()
        if name in done.results
    )


def _columns(sweep: Sweep) -> dict[str, str]:
    """Name -> heading of every column behind the arm and its number of seeds."""
    columns = {}
    for name, label in sweep.headlines.items():
        columns |= {name: label, f"{name}_closed": "of the gap"}
    return columns | {**sweep.others, "time/seconds": "time", "time/pass_seconds": "in passes"}


def _by_seed(
    sweep: Sweep, finished: Mapping[Run, Finished], arm: str
) -> dict[str, dict[int, float]]:
    """Column -> seed -> number, of one arm."""

    def values(name: str, arm: str) -> dict[int, float]:
        return {
            run.seed: done.results[name]
            for run, done in finished.items()
            if run.arm == arm and name in done.results
        }

    columns = {name: values(name, arm) for name in [*sweep.headlines, *sweep.others]}
    if arm not in (sweep.baseline, sweep.ceiling):  # theirs are 0 and 1 by definition
        for name in sweep.headlines:
            columns[f"{name}_closed"] = shares_closed(
                columns[name],
                baseline=values(name, sweep.baseline),
                ceiling=values(name, sweep.ceiling),
            )
    clocks = {run.seed: done.clocked for run, done in finished.items() if run.arm == arm}
    columns["time/seconds"] = {seed: clock.seconds for seed, clock in clocks.items()}
    columns["time/pass_seconds"] = {seed: clock.pass_seconds for seed, clock in clocks.items()}
    return columns


def _is_known(name: str, found: Mapping[str, Mapping[str, Mapping[int, float]]]) -> bool:
    return any(columns.get(name) for columns in found.values())


def _cell(name: str, values: Mapping[int, float]) -> str:
    if not values:
        return ""
    return format_spread(name, spread(values.values()))


def format_spread(name: str, found: Spread) -> str:
    """A mean and its spread, by the name of the result: `74.5 ± 0.8 %`; one seed has no spread."""
    if name.endswith("seconds"):
        return format_seconds(round(found.mean))
    if name.endswith("_closed"):
        mean, deviation, unit = 100 * found.mean, 100 * found.deviation, " %"
        digits = 0
    elif is_share(name) or is_score(name):
        mean, deviation, unit = 100 * found.mean, 100 * found.deviation, " %"
        digits, unit = 1, " %" if is_share(name) else ""
    else:
        mean, deviation, unit, digits = found.mean, found.deviation, "", 3
    if math.isnan(mean):
        return "no gap" if name.endswith("_closed") else "NaN"
    spread_text = "" if math.isnan(deviation) else f" ± {deviation:.{digits}f}"
    return f"{mean:.{digits}f}{spread_text}{unit}"


def _note(sweep: Sweep, finished: Mapping[Run, Finished]) -> str:
    seeds = ", ".join(map(str, sweep.seeds))
    wanted = len(sweep.arms) * len(sweep.seeds)
    lines = [
        f"Mean ± sample standard deviation over seeds {seeds}; {len(finished)} of {wanted} "
        "runs are there.",
        f"Of the gap: (arm - {sweep.baseline}) / ({sweep.ceiling} - {sweep.baseline}), seed by "
        "seed.",
    ]
    return "\n".join(lines)
