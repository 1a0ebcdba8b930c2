"""`sweep`: trains all arms of an experiment with several seeds, and compares them in a table.

    python -m nlip_jax sweep --config=configs/scenes.py --workdir=runs/scenes_sweep
    python -m nlip_jax sweep --config=configs/scenes.py --workdir=runs/scenes_sweep --table

Each run is a `train` in a process and a folder of its own, WORKDIR/ARM/SEED, so whatever becomes of
one does not touch the others. The same command again goes on: with what was stopped where it was
stopped, and with what failed anew. What is finished is only read.
"""

import contextlib
import dataclasses
import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

from ml_collections import ConfigDict

from nlip_jax import config as configs
from nlip_jax.commands import workdir as workdirs
from nlip_jax.commands.json_file import check_json_file, write_json_file
from nlip_jax.commands.ranges import check_numbers
from nlip_jax.commands.sweeping.child import Children
from nlip_jax.commands.sweeping.found import Finished, read_finished, read_last_step
from nlip_jax.commands.sweeping.plan import Run, Sweep, choose_arms, choose_seeds, read_sweep
from nlip_jax.commands.sweeping.table import headline_texts, summary, table
from nlip_jax.commands.table import COMMANDS
from nlip_jax.errors import Preempted, UsageError
from nlip_jax.files import json_text, write_atomically
from nlip_jax.report.formats import format_seconds

# What JAX adds to a traceback, behind the line that says what is wrong.
_EMPTY_WORDS = ("For simplicity, JAX has removed", "------")
_STOPPED = "stopped as asked; run the same command again to go on"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Request:
    """What the command was asked for.

    Attributes:
      file: the config file.
      sweep: what it names, with the seeds that were asked for.
      runs: those to train, in this order, with their configs.
      settings: `--config.FIELD=VALUE` of all runs.
      workdir: folder of the sweep.
      json: file that gets the numbers as well, if any.
      only_table: whether to train nothing.
    """

    file: str
    sweep: Sweep
    runs: dict[Run, ConfigDict]
    settings: tuple[str, ...]
    workdir: Path
    json: Path | None
    only_table: bool

    def arguments(self, run: Run) -> list[str]:
        """Of `train`."""
        config = run.config(self.file, self.workdir)
        return [f"--config={config}", *self.settings, f"--workdir={run.workdir(self.workdir)}"]

    def find(self) -> dict[Run, Finished]:
        """The runs that are finished."""
        return read_finished(self.workdir, self.sweep)


def main(argv: list[str]) -> int:
    """Runs the command; returns the exit code: 1 where a run failed."""
    request = read_request(argv)
    if request.only_table:
        print(table(request.sweep, request.find()))
        return 0
    with workdirs.lock(request.workdir), Children().listening() as children:
        failed = run_all(request, children)
        write_found(request)
    print(table(request.sweep, request.find()))
    if failed:
        print(f"failed: {'; '.join(failed)}", file=sys.stderr)
    return 1 if failed else 0


def read_request(argv: list[str]) -> Request:
    """What the command line asks for.

    Raises:
      UsageError: anything in it, or in the config of any arm, is wrong.
    """
    argv = ["--table=1" if argument == "--table" else argument for argument in argv]
    file = configs.config_argument(argv, command="sweep")
    _, rest = configs.take_flag(argv, "config")
    given, settings = {}, rest
    for name in COMMANDS["sweep"].flags:
        given[name], settings = configs.take_flag(settings, name)
    for setting in settings:
        if setting.lstrip("-").split("=")[0] == "config.seed":
            raise UsageError(f"{setting}: each run has a seed of its own; choose --seeds=0,1")
    sweep = read_sweep(file)
    sweep = dataclasses.replace(sweep, seeds=choose_seeds(given["seeds"], sweep))
    arms = choose_arms(given["arms"], sweep)
    if given["table"] not in ("", "1"):
        raise UsageError(f"--table={given['table']}: takes no value")
    workdir = Path(given["workdir"] or Path("runs") / f"{Path(file).stem}_sweep").expanduser()
    if (workdir / "config.json").exists():
        raise UsageError(f"--workdir={workdir} is the folder of a run; choose another for a sweep")
    return Request(
        file=file,
        sweep=sweep,
        runs={run: _config(file, run, settings, workdir) for run in sweep.runs(arms=arms)},
        settings=tuple(settings),
        workdir=workdir,
        json=check_json_file(given["json"]),
        only_table=given["table"] == "1",
    )


def _config(file: str, run: Run, settings: list[str], workdir: Path) -> ConfigDict:
    """The config of a run, as `train` will read it; what is wrong with any is found at once."""
    config = configs.read_config(run.config(file, workdir))
    config, _ = configs.parse_settings(settings, config=config, command="sweep")
    check_numbers(config)
    return config


def run_all(request: Request, children: Children) -> list[str]:
    """Trains what is not finished, run by run.

    Args:
      request: what was asked for.
      children: the processes.

    Returns:
      The names of the runs that failed.

    Raises:
      Preempted: asked to stop.
      KeyboardInterrupt: asked to leave at once.
    """
    failed = []
    for number, (run, config) in enumerate(request.runs.items(), 1):
        if children.is_asked_to_stop:
            raise Preempted(_STOPPED)
        place = f"{number} of {len(request.runs)}: {run.name}"
        if is_finished(config, run.workdir(request.workdir)):
            print(f"{place}: finished before", file=sys.stderr)
            continue
        print(f"{place} ...", file=sys.stderr)
        log = run.log(request.workdir)
        command = [sys.executable, "-m", "nlip_jax", "train", *request.arguments(run)]
        with progress(place, run.workdir(request.workdir) / "metrics.jsonl") as show:
            code = children.run(command, log=log, on_wait=show)
        if children.is_asked_to_stop:
            if children.interrupts > 1:
                raise KeyboardInterrupt
            raise Preempted(_STOPPED)
        if code:
            failed.append(run.name)
            print(f"{place}: {_reason(code, log)}", file=sys.stderr)
        else:
            done = request.find()[run]
            took = format_seconds(round(done.clocked.seconds))
            print(f"{place}: {headline_texts(request.sweep, done)}; {took}", file=sys.stderr)
        write_found(request)
    return failed


def is_finished(config: ConfigDict, workdir: Path) -> bool:
    """Whether nothing is left to do for a run; one of other settings is for `train` to refuse.

    Fields that only one of both configs has are those of another version of this package: what the
    run has found stands. Other evaluators, though, have something left to find.
    """
    if workdirs.finished_results(config, workdir) is None:
        return False
    old = workdirs.read_json(workdir / "config.json")
    new = json.loads(configs.to_json(config))
    shared = configs.flatten(old).keys() & configs.flatten(new).keys()
    return not any(
        name.startswith(("evaluat", "ema.evaluate"))
        or (name in shared and not configs.is_runtime(name, tuple(config.runtime)))
        for name in configs.changed_fields(old, new)
    )


def write_found(request: Request) -> None:
    """Writes sweep.json and sweep.md, and the file of --json."""
    finished = request.find()
    numbers = {"config": request.file} | summary(request.sweep, finished)
    text = json_text(numbers, indent=2) + "\n"
    write_atomically(request.workdir / "sweep.json", text.encode())
    page = table(request.sweep, finished) + "\n"
    write_atomically(request.workdir / "sweep.md", page.encode())
    if request.json is not None:
        write_json_file(request.json, numbers)


@contextlib.contextmanager
def progress(place: str, path: Path) -> Iterator[Callable[[], None]]:
    """A line on the terminal that follows the metrics.jsonl of a run; elsewhere there is none."""
    is_terminal = sys.stderr.isatty()

    def show() -> None:
        if is_terminal and (line := read_last_step(path)):
            text = f"{place}: step {line['step']}, loss {line['train/loss'] or float('nan'):.4f}"
            print(f"\r\x1b[K{text}", end="", file=sys.stderr, flush=True)

    try:
        yield show
    finally:
        if is_terminal:
            print("\r\x1b[K", end="", file=sys.stderr, flush=True)


def _reason(code: int, log: Path) -> str:
    """Why a run failed: its exit code, and the last thing that it said."""
    lines = log.read_text(errors="replace").splitlines()
    said = [line for line in lines if line.strip() and not line.startswith(_EMPTY_WORDS)]
    ended = f"ended by signal {-code}" if code < 0 else f"failed with exit code {code}"
    return f"{ended}: {said[-1].strip()} (all of it: {log})" if said else ended
