"""What `search` was asked for, from its command line."""

import dataclasses
from pathlib import Path

from ml_collections import ConfigDict

from nlip_jax import config as configs
from nlip_jax.checkpoint import saved_steps
from nlip_jax.commands import workdir as workdirs
from nlip_jax.commands.evaluation.request import check_unaltered
from nlip_jax.commands.json_file import check_json_file
from nlip_jax.commands.table import COMMANDS
from nlip_jax.errors import UsageError
from nlip_jax.evaluators.query import check_weights

_TOP = 24
DATA = "data"  # value of --over that means the training data


@dataclasses.dataclass(frozen=True, kw_only=True)
class Request:
    """A command line, read.

    Attributes:
      config: of the run, with all that was set.
      own: what the run was trained with.
      run: its folder.
      step: of the checkpoint.
      text: of the query; empty without.
      image: file of the query; empty without.
      image_weight: in a query of both.
      text_weight: likewise.
      over: what is searched: `DATA`, KIND/SET or a folder.
      other: the config whose data are searched instead of the run's own; None: those.
      other_name: of its file.
      top: how many images are wanted.
      cache: folder for the features of the images that are searched.
      page: file for a page, or None.
      json: file for the results, or None.
    """

    config: ConfigDict
    own: ConfigDict
    run: Path
    step: int
    text: str
    image: str
    image_weight: float
    text_weight: float
    over: str
    other: ConfigDict | None
    other_name: str
    top: int
    cache: Path
    page: Path | None
    json: Path | None

    @property
    def has_both(self) -> bool:
        """Whether an image and a text are combined."""
        return bool(self.text and self.image)


def read_request(argv: list[str]) -> Request:
    """Reads the command line.

    Raises:
      UsageError: flags that do not exist or do not go together, or no such run.
    """
    file, settings = configs.take_flag(argv, "config")
    workdir, _ = configs.take_flag(settings, "workdir")
    if not workdir:
        raise UsageError("--workdir=FOLDER of a run is missing")
    run = Path(workdir).expanduser()
    own = workdirs.read_config(run)
    config, values = configs.parse_settings(
        settings,
        config=own.copy_and_resolve_references(),
        command="search",
        extra_flags=COMMANDS["search"].flags,
    )
    check_unaltered(own, config)
    if not values["text"].strip() and not values["image"]:
        raise UsageError("there is nothing to search with: give --text=..., --image=FILE, or both")
    weights = {name: _number(values, name) for name in ("image_weight", "text_weight")}
    if values["text"].strip() and values["image"]:
        check_weights(**weights)
    elif given := [name for name in weights if values[name]]:
        raise UsageError(
            f"--{given[0]}={values[given[0]]} weighs an image and a text beside each other: give "
            "both --text and --image, or leave it out"
        )
    if not values["over"] and not file:
        raise UsageError(
            "--over=... is missing: a folder of images, KIND/SET of config.evaluators, or "
            f"{DATA!r} for the training data"
        )
    return Request(
        config=config,
        own=own,
        run=run,
        step=choose_step(values["step"] or "latest", run / "checkpoints"),
        text=values["text"].strip(),
        image=values["image"],
        **weights,
        over=values["over"] or DATA,
        other=configs.read_config(file) if file else None,
        other_name=file,
        top=_count(values["top"] or str(_TOP), flag="top"),
        cache=_folder(values["cache"]) if values["cache"] else run / "search",
        page=check_json_file(values["page"], flag="page"),
        json=check_json_file(values["json"]),
    )


def _number(values: dict[str, str], name: str) -> float:
    try:
        return float(values[name] or "1")
    except ValueError as error:
        raise UsageError(f"--{name}={values[name]}: must be a number, such as 2 or -0.5") from error


def _count(text: str, *, flag: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise UsageError(f"--{flag}={text}: must be a whole number, 1 or more")
    return int(text)


def choose_step(text: str, checkpoints: Path) -> int:
    """The step of a checkpoint.

    Args:
      text: value of --step: latest, or a number.
      checkpoints: their folder.

    Raises:
      UsageError: there is no such checkpoint.
    """
    steps = saved_steps(checkpoints)
    if not steps:
        raise UsageError(f"{checkpoints} holds no checkpoint yet")
    if text == "latest":
        return steps[-1]
    if not text.isdecimal() or int(text) not in steps:
        raise UsageError(
            f"--step={text}: there is no such checkpoint; choose latest or one of "
            f"{', '.join(map(str, steps))}"
        )
    return int(text)


def _folder(text: str) -> Path:
    folder = Path(text).expanduser()
    if folder.exists() and not folder.is_dir():
        raise UsageError(f"--cache={text} is a file; name a folder")
    return folder
