"""The folder of a run: whose it is, whether it is finished, who is working in it."""

import contextlib
import fcntl
import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from nlip_jax import config as configs
from nlip_jax.errors import UsageError
from nlip_jax.files import write_atomically

_BASE = Path(__file__).resolve().parents[2] / "configs" / "base.py"
_OPEN = ("evaluators.", "data.mixture.")  # blocks that take names of one's own
# What other commands may have put there before the run. With data.json there, a run has begun, and
# was perhaps cut short before its config.json.
_MADE_BEFORE = {
    "index",
    "tokenizer.model",
    "tokenizer.json",
    "concepts.txt",
    "concepts.json",
    ".lock",
}


def find_workdir(given: str, argv: list[str]) -> Path:
    """The folder of a run: the one given, else `runs/NAME_OF_CONFIG[_ARGUMENT]`.

    Args:
      given: value of --workdir, or "".
      argv: of the command, for the name of its config.

    Raises:
      UsageError: a file stands in its place.
    """
    path, _, argument = configs.config_argument(argv, command="this").partition(":")
    name = Path(path).stem + (f"_{argument}" if argument else "")
    safe = "".join(c if c.isalnum() or c in "-_=.," else "_" for c in name)
    workdir = Path(given).expanduser() if given else Path("runs") / safe
    if workdir.exists() and not workdir.is_dir():
        raise UsageError(f"--workdir={workdir} is a file; name a folder")
    return workdir


def make_workdir(workdir: Path) -> None:
    """Makes the folder where it does not exist; raises UsageError if that is not possible."""
    try:
        workdir.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise _cannot_write(workdir, error) from error


def read_config(workdir: Path, *, flag: str = "--workdir") -> ConfigDict:
    """The config of the run in a folder.

    Args:
      workdir: the folder.
      flag: or field of a config that names it, for messages.

    Raises:
      UsageError: no run has begun there, or one of another version of this package.
    """
    for name in ("config.json", "data.json"):
        if not (workdir / name).is_file():
            raise UsageError(f"{flag}={workdir} is no folder of a run: it has no {name}")
    path = workdir / "config.json"
    try:
        config = configs.from_json(path.read_text())
    except ValueError as error:
        raise UsageError(f"{path} is damaged ({error}); train again in another folder") from error
    if _BASE.exists():
        _check_fields(workdir, old=config, new=configs.read_config(str(_BASE)))
    return config


def _check_fields(workdir: Path, *, old: ConfigDict | dict, new: ConfigDict) -> None:
    """Refuses a run whose config lacks fields: there is no telling what they would have been."""
    known = configs.flatten(old)
    lacking = [
        name for name in configs.flatten(new) if name not in known and not name.startswith(_OPEN)
    ]
    if lacking:
        more = f" and {len(lacking) - 1} more" if len(lacking) > 1 else ""
        raise UsageError(
            f"the run in {workdir} was begun with another version of nlip_jax or of its config: "
            f"it has no config.{lacking[0]}{more}; go on with that version, or choose another "
            "--workdir"
        )


@contextlib.contextmanager
def lock(workdir: Path, *, flag: str = "--workdir") -> Iterator[None]:
    """Makes the folder and keeps other runs out of it; a killed process lets go of it.

    Args:
      workdir: the folder.
      flag: that names it, for messages.

    Raises:
      UsageError: another process works there, or it cannot be written.
    """
    make_workdir(workdir)
    try:
        file = (workdir / ".lock").open("a+")
    except OSError as error:
        raise _cannot_write(workdir, error) from error
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        file.seek(0)
        raise UsageError(
            f"process {file.read().strip() or '?'} is working in {workdir}; wait for it or choose "
            f"another {flag}"
        ) from error
    with file:
        file.truncate(0)
        file.write(str(os.getpid()))
        file.flush()
        yield


def _cannot_write(workdir: Path, error: OSError) -> UsageError:
    return UsageError(f"the folder {workdir} cannot be written: {error.strerror}")


def check_config(workdir: Path, config: ConfigDict, *, may_grow: bool) -> dict[str, tuple]:
    """Compares a config with that of the run in the folder.

    Args:
      workdir: of the run; may be new.
      config: of this command.
      may_grow: whether `total` may change.

    Returns:
      The fields that changed, all of them allowed to: dotted name -> (old, new).

    Raises:
      UsageError: a field that alters training changed, or the folder is not a run's.
    """
    path = workdir / "config.json"
    if not path.exists():
        found = workdir.iterdir() if workdir.exists() else ()
        others = {p.name for p in found if p.suffix != ".tmp"} - _MADE_BEFORE
        if others and "data.json" not in others:
            raise UsageError(
                f"{workdir} is not empty and not of a run (it holds {sorted(others)[0]}); choose "
                "another --workdir"
            )
        return {}
    if not any(p.name.isdigit() for p in (workdir / "checkpoints").glob("*")):
        return {}  # nothing was computed yet that another config could contradict
    before = read_json(path)
    _check_fields(workdir, old=before, new=config)
    changes = configs.changed_fields(before, json.loads(configs.to_json(config)))
    allowed = (*config.runtime, "total") if may_grow else tuple(config.runtime)
    for name, (old, new) in changes.items():
        if not configs.is_runtime(name, allowed):
            raise UsageError(
                f"{workdir} holds a run with config.{name}={old!r}, now it is {new!r}, which "
                "alters training: choose another --workdir, or set it back to go on with that run"
            )
    return changes


def check_total(config: ConfigDict, *, total: int, done: int) -> None:
    """Refuses a run shorter than what it has done already.

    Args:
      config: of this command.
      total: its length in steps.
      done: step of the newest checkpoint.

    Raises:
      UsageError: the run would have to go back.
    """
    if done > total:
        raise UsageError(
            f"config.total={config.total!r} is {total} steps, but this run has done {done}: "
            "it can be prolonged, not shortened"
        )


def say_changes(changes: dict[str, tuple]) -> None:
    """One line for each field that changed between the parts of a run."""
    for name, (old, new) in changes.items():
        print(f"config.{name}: {old!r} -> {new!r} from here on", file=sys.stderr)


def check_data(workdir: Path, description: dict[str, Any]) -> None:
    """Writes what the run's data are, or makes sure that they still are.

    Args:
      workdir: of the run.
      description: plain values by name, `fingerprint` and `num_examples` among them.

    Raises:
      UsageError: the data are not those that the run began with.
    """
    path = workdir / "data.json"
    if path.exists():
        for name, old in read_json(path).items():
            if description.get(name) != old:
                raise UsageError(
                    f"the data of {workdir} changed: {name} was {old!r}, now it is "
                    f"{description.get(name)!r}; bring the data back or choose another --workdir"
                )
    else:
        write_atomically(path, (json.dumps(description, indent=2) + "\n").encode())


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object, empty where there is no file; raises UsageError where it is damaged."""
    try:
        return json.loads(path.read_text()) if path.exists() else {}
    except ValueError as error:
        raise UsageError(
            f"{path} is damaged ({error}): bring it back, or choose another folder"
        ) from error


def finished_results(config: ConfigDict, workdir: Path) -> dict[str, float] | None:
    """Results of a run that has nothing left to do, else None."""
    results = read_json(workdir / "results.json")
    data = read_json(workdir / "data.json")
    if not results or not data:
        return None
    clock = configs.Clock(batch_size=config.batch_size, num_examples=data["num_examples"])
    total = clock.steps(config.total, field="total")
    return results if results["step"] >= total else None
