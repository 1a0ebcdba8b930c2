"""What `audit` was asked for, from its command line."""

import dataclasses
import math
from pathlib import Path

from ml_collections import ConfigDict

from nlip_jax import config as configs
from nlip_jax.commands import workdir as workdirs
from nlip_jax.commands.auditing.folder import check_folder
from nlip_jax.commands.auditing.kept import Limits
from nlip_jax.commands.evaluation.request import check_unaltered
from nlip_jax.commands.json_file import check_json_file
from nlip_jax.commands.ranges import check_numbers
from nlip_jax.commands.searching.request import choose_step
from nlip_jax.commands.table import COMMANDS
from nlip_jax.errors import UsageError

_MINUTES, _KEEP_BELOW, _SHARD_NOISE, _NEAR = 10.0, 0.5, 0.5, 0.7


@dataclasses.dataclass(frozen=True, kw_only=True)
class Request:
    """A command line, read.

    Attributes:
      data: the config whose data are audited.
      name: of these, for people.
      run: folder of the run whose model is used; None: a small one is trained.
      own: the config of that run; None without one.
      own_data: whether the data are those of the run.
      step: of its checkpoint; None: the newest.
      workdir: of the audit.
      seconds: that it may take.
      limits: what counts as good enough.
      near: similarity from which captions are nearly identical.
      json: file for the numbers, or None.
    """

    data: ConfigDict
    name: str
    run: Path | None
    own: ConfigDict | None
    own_data: bool
    step: int | None
    workdir: Path
    seconds: float
    limits: Limits
    near: float
    json: Path | None


def read_request(argv: list[str]) -> Request:
    """Reads the command line.

    Raises:
      UsageError: flags that do not exist or do not go together, or no such run.
    """
    file, settings = configs.take_flag(argv, "config")
    given, _ = configs.take_flag(settings, "run")
    if not file and not given:
        raise UsageError(
            "there is nothing to audit: give --config=FILE of the data, --run=FOLDER of a run for "
            "its own data, or both"
        )
    run = Path(given).expanduser() if given else None
    own = workdirs.read_config(run, flag="--run") if run else None
    data, values = configs.parse_settings(
        settings,
        config=configs.read_config(file) if file else own.copy_and_resolve_references(),
        command="audit",
        extra_flags=COMMANDS["audit"].flags,
    )
    if run and not file:
        check_unaltered(own, data, also=("concepts.*", "captions.*"))
    check_numbers(data)
    name = _name(file) if file else run.name
    workdir = Path(values["workdir"] or Path("audits") / name).expanduser()
    if run and workdir.resolve() == run.resolve():
        raise UsageError(
            f"--workdir={workdir} is the folder of the run, which is only read: name another"
        )
    check_folder(workdir)
    if values["step"] and not run:
        raise UsageError(f"--step={values['step']}: only a --run has checkpoints to choose from")
    return Request(
        data=data,
        name=name,
        run=run,
        own=own,
        own_data=not file,
        step=choose_step(values["step"] or "latest", run / "checkpoints") if run else None,
        workdir=workdir,
        seconds=60 * _number(values, "minutes", _MINUTES, low=0.1, high=math.inf),
        limits=Limits(
            keep_below=_number(values, "keep_below", _KEEP_BELOW, low=0, high=1.01),
            shard_noise=_number(values, "shard_noise", _SHARD_NOISE, low=0, high=1),
        ),
        near=_number(values, "near", _NEAR, low=0.3, high=1.01),
        json=check_json_file(values["json"]),
    )


def _name(file: str) -> str:
    path, _, argument = file.partition(":")
    name = Path(path).stem + (f"_{argument}" if argument else "")
    return "".join(c if c.isalnum() or c in "-_=.," else "_" for c in name)


def _number(
    values: dict[str, str], name: str, default: float, *, low: float, high: float
) -> float:
    text = values[name]
    try:
        number = float(text) if text else default
    except ValueError as error:
        raise UsageError(f"--{name}={text}: must be a number, such as {default:g}") from error
    if not low <= number <= high or math.isinf(number):
        end = "" if math.isinf(high) else f" and at most {high:g}"
        raise UsageError(f"--{name}={text}: must be at least {low:g}{end}")
    return number
