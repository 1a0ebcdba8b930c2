"""Configurations: from the command line to plain data, and from one run to its continuation.

Configs are `ml_collections.ConfigDict`s made by a file's `get_config(arg)`. This module knows
nothing of what the fields mean; `build.py` turns them into objects.
"""

import dataclasses
import fnmatch
import json
import math
import re
import sys
from pathlib import Path
from typing import Any

from absl import flags
from ml_collections import ConfigDict, config_flags

from nlip_jax.errors import UsageError

_DURATION = re.compile(r"\s*([0-9][0-9_.]*(?:[eE][+-]?\d+)?)\s*(steps?|epochs?|examples?|%)\s*")


@dataclasses.dataclass(frozen=True)
class Clock:
    """Converts durations to steps for one batch size and one data set.

    Attributes:
      batch_size: global batch.
      num_examples: examples in an epoch.
      total_steps: length of the run, for percentages; 0 while it is not known yet.
    """

    batch_size: int
    num_examples: int
    total_steps: int = 0

    def steps(self, text: str, *, field: str) -> int:
        """Whole steps of a duration: rounded, and never rounded down to zero.

        Args:
          text: such as "2000 steps", "1.5 epochs", "1e6 examples" or "10 %".
          field: the config field it comes from, for the message.

        Raises:
          UsageError: the text is no duration.
        """
        match = _DURATION.fullmatch(text)
        if not match:
            raise UsageError(
                f"config.{field}={text!r} is no duration: write a number and one of "
                "steps, epochs, examples, % (of config.total)"
            )
        amount, unit = float(match[1].replace("_", "")), match[2].rstrip("s")
        per_unit = {
            "step": 1.0,
            "epoch": self.num_examples / self.batch_size,
            "example": 1.0 / self.batch_size,
            "%": self.total_steps / 100,
        }
        if unit == "%" and not self.total_steps:
            raise UsageError(f"config.{field}={text!r}: a run cannot be a share of its own length")
        return max(1, round(amount * per_unit[unit])) if amount else 0


def parse_command_line(
    argv: list[str], *, command: str, extra_flags: dict[str, str] | None = None
) -> tuple[ConfigDict, dict[str, str]]:
    """Reads `--config=FILE[:arg] --config.a.b=value` and a command's own text flags.

    Args:
      argv: arguments after the command's name.
      command: for messages.
      extra_flags: name -> help of further flags, all with text values; "" when not given.

    Returns:
      The config and the values of the extra flags.

    Raises:
      UsageError: anything unknown, unreadable or of a wrong type.
    """
    if not any(re.match(r"--?config(=|$)", argument) for argument in argv):
        raise UsageError(
            f"{command} needs --config=FILE, such as --config=configs/quickstart.py; "
            f"`python -m nlip_jax {command} --help` lists the rest"
        )
    _make_importable(argv)
    values = flags.FlagValues()
    config_flags.DEFINE_config_file("config", flag_values=values)
    for name, text in (extra_flags or {}).items():
        flags.DEFINE_string(name, "", text, flag_values=values)
    try:
        rest = values([command, *argv])
        config = values.config
        if not isinstance(config, ConfigDict):  # ml_collections reports a bad file only on use
            len(config)
    except UsageError:
        raise
    except AttributeError as error:  # ml_collections' way to say "no such field"
        raise UsageError(f"no such config field: {_unknown_field(argv, error)}") from error
    except Exception as error:
        raise UsageError(f"{command}: {_one_line(error)}") from error
    if rest[1:]:
        raise UsageError(f"unexpected argument {rest[1]!r}; every setting is --name=value")
    return config, {name: values[name].value for name in extra_flags or {}}


def _make_importable(argv: list[str]) -> None:
    """Lets a config file import its neighbours as `configs.x`, from any working directory."""
    for i, argument in enumerate(argv):
        match = re.fullmatch(r"--?config(?:=(.*))?", argument)
        if match:
            text = match[1] if match[1] is not None else (argv[i + 1 : i + 2] or [""])[0]
            folder = str(Path(text.split(".py")[0] + ".py").resolve().parent.parent)
            if folder not in sys.path:
                sys.path.insert(0, folder)


def _unknown_field(argv: list[str], error: AttributeError) -> str:
    name = str(error).strip("'\" \n").splitlines()[0].strip("'\"")
    for argument in argv:
        field = re.match(r"--?(config\.[^= ]+)", argument)
        if field and name.split("'")[0] in field[1].split("."):
            return f"{field[1]}; configs/base.py describes every field"
    return f"{name}; configs/base.py describes every field"


def _one_line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return " ".join(lines[:2]) or type(error).__name__


def flatten(config: ConfigDict | dict) -> dict[str, Any]:
    """Fields by dotted name; tuples become lists, as JSON has them."""
    flat = {}

    def visit(value: Any, path: tuple[str, ...]) -> None:
        if isinstance(value, ConfigDict | dict) and len(value):
            for key in value:
                visit(value[key], (*path, str(key)))
        elif isinstance(value, ConfigDict | dict):
            flat[".".join(path)] = {}
        else:
            flat[".".join(path)] = list(value) if isinstance(value, tuple) else value

    visit(config, ())
    return flat


def to_json(config: ConfigDict) -> str:
    """The resolved config as JSON, in the order of its fields."""
    return json.dumps(config.to_dict(), indent=2, default=list) + "\n"


def changed_fields(old: dict, new: dict) -> dict[str, tuple[Any, Any]]:
    """Fields whose values differ: dotted name -> (old, new); absent ones are None.

    `evaluators` and `runtime` themselves may be emptied or listed anew without a message.
    """
    before, after = flatten(old), flatten(new)
    names = [*before, *(name for name in after if name not in before)]
    return {
        name: (before.get(name), after.get(name))
        for name in names
        if before.get(name) != after.get(name)
    }


def is_runtime(name: str, patterns: tuple[str, ...]) -> bool:
    """Whether a field, by dotted name, may change between the parts of one run."""
    return any(fnmatch.fnmatchcase(name, p) or p == f"{name}.*" for p in patterns)


def check_finite_fields(config: ConfigDict) -> None:
    """Refuses NaN and infinite numbers anywhere in the config."""
    for name, value in flatten(config).items():
        for number in value if isinstance(value, list) else [value]:
            if isinstance(number, float) and not math.isfinite(number):
                raise UsageError(f"config.{name}={value}: must be a finite number")
