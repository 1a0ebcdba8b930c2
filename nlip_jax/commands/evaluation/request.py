"""What `evaluate` was asked for, from its command line."""

import dataclasses
import math
import sys
import time
from pathlib import Path

from ml_collections import ConfigDict

from nlip_jax import config as configs
from nlip_jax.commands import workdir as workdirs
from nlip_jax.commands.evaluation.output import check_place
from nlip_jax.commands.evaluation.waiting import wait
from nlip_jax.commands.json_file import check_json_file
from nlip_jax.commands.table import COMMANDS
from nlip_jax.errors import RunError, UsageError
from nlip_jax.train import stop

_POLL = 60.0  # seconds between two looks for a new checkpoint
_BLOCKS = ("evaluators", "evaluation")  # that --config brings to a run


@dataclasses.dataclass(frozen=True, kw_only=True)
class Request:
    """A command line, read.

    Attributes:
      config: of the run, or of --config for a model, with all that was set.
      own: what the run was trained with; None for a model.
      run: its folder; None for a model.
      model: package.module:function, or empty.
      output: where results go.
      chosen: as of `Steps`.
      poll: seconds between two looks for a new checkpoint.
      timeout: seconds without one that end a watch; 0: none.
      json: file for the numbers, too, or None.
    """

    config: ConfigDict
    own: ConfigDict | None
    run: Path | None
    model: str
    output: Path
    chosen: str
    poll: float
    timeout: float
    json: Path | None


def read_request(argv: list[str]) -> Request:
    """Reads the command line; waits for a run that has not begun where it is to be watched.

    Raises:
      UsageError: flags that do not exist or do not go together, or no such run.
    """
    argv = [f"--watch={_POLL:g}" if argument == "--watch" else argument for argument in argv]
    file, settings = configs.take_flag(argv, "config")
    # Known before the config is, which may be the run's own.
    flags = [s for s in settings if not s.lstrip("-").startswith(("config.", "noconfig."))]
    given = {name: configs.take_flag(flags, name)[0] for name in COMMANDS["evaluate"].flags}
    for name in ("tolerance", "page"):
        if given[name]:
            raise UsageError(f"--{name}={given[name]} belongs to --compare RUN_A RUN_B")
    poll = _seconds(given["watch"] or f"{_POLL:g}", flag="watch")
    timeout = _seconds(given["timeout"], flag="timeout") if given["timeout"] else 0.0
    if timeout and not given["watch"]:
        raise UsageError(f"--timeout={given['timeout']} bounds --watch, which is not given")
    json_file = check_json_file(given["json"])
    if given["model"]:
        own, run, config = None, None, _config_of_model(file, given)
    else:
        if not given["workdir"]:
            raise UsageError("--workdir=FOLDER of a run, or --model=package.module:function")
        run = Path(given["workdir"]).expanduser()
        if given["watch"]:
            _await_run(run, poll=poll, timeout=timeout)
        own = workdirs.read_config(run)
        config = _with_blocks(own.copy_and_resolve_references(), file)
    config, _ = configs.parse_settings(
        settings, config=config, command="evaluate", extra_flags=COMMANDS["evaluate"].flags
    )
    if own is not None:
        check_unaltered(own, config)
    output = Path(given["output"]).expanduser() if given["output"] else run / "evaluate"
    check_place(output)
    return Request(
        config=config,
        own=own,
        run=run,
        model=given["model"],
        output=output,
        chosen=_chosen(given),
        poll=poll,
        timeout=timeout,
        json=json_file,
    )


def _chosen(given: dict[str, str]) -> str:
    step = given["step"] or "latest"
    if step not in ("latest", "all") and not step.isdecimal():
        raise UsageError(f"--step={step}: choose latest, all or the number of a checkpoint")
    if given["watch"] and given["step"]:
        raise UsageError("--watch evaluates every step: leave --step out")
    return "watch" if given["watch"] else step


def _config_of_model(file: str, given: dict[str, str]) -> ConfigDict:
    for name in ("workdir", "step", "watch"):
        if given[name]:
            raise UsageError(f"--model and --{name} do not go together: a model has no checkpoints")
    if not file or not given["output"]:
        raise UsageError("--model needs --config=FILE with evaluators, and --output=FOLDER")
    return configs.read_config(file)


def _with_blocks(config: ConfigDict, file: str) -> ConfigDict:
    """The config of a run with the evaluation sets of another file, if one is given."""
    if file:
        other = configs.read_config(file)
        for name in _BLOCKS:
            if name not in other:
                raise UsageError(f"--config={file} has no config.{name}: see configs/base.py")
            config[name] = other[name]
    return config


def check_unaltered(
    own: ConfigDict, config: ConfigDict, *, also: tuple[str, ...] = ()
) -> None:
    """Refuses fields that would make another model of the run's parameters.

    Args:
      own: what the run was trained with.
      config: the same with what was set on the command line.
      also: patterns of further fields that may be set.

    Raises:
      UsageError: such a field was set.
    """
    for name, (old, new) in configs.changed_fields(own.to_dict(), config.to_dict()).items():
        if not configs.is_runtime(name, (*own.runtime, *also)):
            examples = also or ("evaluators", "mesh")
            raise UsageError(
                f"config.{name}={new!r}: the run was trained with {old!r}; only fields that do not "
                f"alter training may be set here, such as config.{' and config.'.join(examples)}"
            )


def _await_run(run: Path, *, poll: float, timeout: float) -> None:
    """Returns when a run has begun."""
    begun, said = time.monotonic(), False
    stop.install_handlers(after="this look")
    while not (run / "config.json").is_file():
        if timeout and time.monotonic() - begun > timeout:
            raise RunError(f"no run has begun in {run} for {timeout:g} seconds")
        if not said:
            print(f"waiting for a run to begin in {run}", file=sys.stderr)
            said = True
        wait(poll, stop.check)


def _seconds(text: str, *, flag: str) -> float:
    try:
        seconds = float(text)
    except ValueError as error:
        raise UsageError(f"--{flag}={text}: must be a number of seconds") from error
    if not 0 < seconds < math.inf:
        raise UsageError(f"--{flag}={text}: must be more than 0 seconds")
    return seconds
