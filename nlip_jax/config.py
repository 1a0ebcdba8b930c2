"""Configurations: from the command line to plain data, and from one run to its continuation.

Configs are `ml_collections.ConfigDict`s made by a file's `get_config(arg)`. This module knows
nothing of what the fields mean; `build/` turns them into objects.
"""

import dataclasses
import difflib
import fnmatch
import importlib.util
import json
import re
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

from absl import flags
from ml_collections import ConfigDict, config_flags

from nlip_jax.errors import UsageError

_DURATION = re.compile(
    r"\s*(\d[\d_]*(?:\.\d*)?(?:[eE][+-]?\d{1,2})?)\s*(steps?|epochs?|examples?|%)\s*"
)
_ALL_FIELDS = re.compile(r" and cannot be added since the config is locked\..*\}\"", re.DOTALL)


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
        steps = amount * per_unit[unit]
        if steps >= 2**31:
            raise UsageError(f"config.{field}={text!r}: {steps:.3g} steps, 2147483647 is the most")
        return max(1, round(steps)) if amount else 0


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
    file, settings = _take_config(argv, command=command)
    return parse_settings(
        settings, config=read_config(file), command=command, extra_flags=extra_flags
    )


def parse_settings(
    settings: list[str],
    *,
    config: ConfigDict,
    command: str,
    extra_flags: dict[str, str] | None = None,
) -> tuple[ConfigDict, dict[str, str]]:
    """Reads `--config.a.b=value` and a command's own text flags, over a config that is there.

    Args:
      settings: arguments after the command's name, without --config itself.
      config: that is changed.
      command: for messages.
      extra_flags: as of `parse_command_line`.

    Returns:
      The config and the values of the extra flags.

    Raises:
      UsageError: anything unknown, unreadable or of a wrong type.
    """
    _check_fields(settings, config)
    values = flags.FlagValues()
    for name, text in (extra_flags or {}).items():
        flags.DEFINE_string(name, "", text, flag_values=values)
    whole = [command, *settings]
    try:
        config_flags.DEFINE_config_dict("config", config, flag_values=values, sys_argv=whole)
        rest = values(whole)
    except (flags.Error, ValueError, TypeError) as error:
        raise UsageError(_one_line(error)) from error
    if rest[1:]:
        raise UsageError(f"unexpected argument {rest[1]!r}; every setting is --name=value")
    return values.config, {name: values[name].value for name in extra_flags or {}}


def parse_flags(argv: list[str], *, command: str, known: dict[str, str]) -> dict[str, str]:
    """Reads the flags of a command that takes no config.

    Args:
      argv: arguments after the command's name.
      command: for messages.
      known: name -> help of its flags, all with text values.

    Returns:
      Their values; "" when not given.

    Raises:
      UsageError: anything unknown.
    """
    values = flags.FlagValues()
    for name, text in known.items():
        flags.DEFINE_string(name, "", text, flag_values=values)
    try:
        rest = values([command, *argv])
    except flags.Error as error:
        raise UsageError(_one_line(error)) from error
    if rest[1:]:
        raise UsageError(f"unexpected argument {rest[1]!r}; every setting is --name=value")
    return {name: values[name].value for name in known}


def read_config(file: str) -> ConfigDict:
    """What the `get_config` of a file returns.

    Args:
      file: FILE.py or FILE.py:ARGUMENT. It can import its neighbours as `configs.x`.

    Raises:
      UsageError: no such file, or no config comes out of it.
    """
    name, *argument = file.split(":", 1)
    config = _take_from(name, lambda module: module.get_config(*argument))
    if not isinstance(config, ConfigDict):
        kind = type(config).__name__
        raise UsageError(f"config file {name}: get_config must return a ConfigDict, not {kind}")
    return config


def read_constant(name: str, constant: str) -> Any:
    """What a config file defines beside its `get_config`; None where it does not.

    Args:
      name: FILE.py.
      constant: the name of it.

    Raises:
      UsageError: no such file, or it cannot be executed.
    """
    return _take_from(name, lambda module: getattr(module, constant, None))


def _take_from(name: str, take: Callable[[ModuleType], Any]) -> Any:
    """Executes a config file, and takes something from it."""
    path = Path(name).resolve()
    if path.suffix != ".py" or not path.is_file():
        raise UsageError(f"no config file {name!r}; name one, such as configs/quickstart.py")
    if (folder := str(path.parent.parent)) not in sys.path:
        sys.path.insert(0, folder)
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
        return take(module)
    except Exception as error:  # a user's code may raise anything
        frames = traceback.extract_tb(error.__traceback__)
        lines = [frame.lineno for frame in frames if frame.filename == str(path)]
        place = f", line {lines[-1]}" if lines else ""
        raise UsageError(f"config file {name}{place}: {_one_line(error)}") from error


def config_argument(argv: list[str], *, command: str) -> str:
    """The value of --config among the arguments of a command: FILE.py or FILE.py:ARGUMENT.

    Raises:
      UsageError: there is none.
    """
    return _take_config(argv, command=command)[0]


def take_flag(argv: list[str], flag: str) -> tuple[str, list[str]]:
    """The value of --flag=VALUE or --flag VALUE, empty without one, and the other arguments."""
    for i, argument in enumerate(argv):
        name, equals, value = argument.partition("=")
        if name in (f"-{flag}", f"--{flag}"):
            used = 1 if equals else 2
            value = value if equals else "".join(argv[i + 1 : i + 2])
            if value:
                return value, argv[:i] + argv[i + used :]
    return "", argv


def _take_config(argv: list[str], *, command: str) -> tuple[str, list[str]]:
    """The value of --config, and the other arguments."""
    value, others = take_flag(argv, "config")
    if value:
        return value, others
    raise UsageError(
        f"{command} needs --config=FILE, such as --config=configs/quickstart.py; "
        f"`python -m nlip_jax {command} --help` lists the rest"
    )


def _check_fields(settings: list[str], config: ConfigDict) -> None:
    """Refuses `--config.a.b=value` for fields that the config does not have."""
    known = flatten(config)
    for setting in settings:
        match = re.match(r"--?(?:no)?config\.([^=\[]+)", setting)
        if match and not any(f"{name}.".startswith(f"{match[1]}.") for name in known):
            close = difflib.get_close_matches(match[1], known, n=1)
            hint = f"did you mean config.{close[0]}?" if close else "see configs/base.py"
            raise UsageError(f"no such config field: config.{match[1]}; {hint}")


def _one_line(error: Exception) -> str:
    # A locked config lists all its fields, with their values, after the one that is missing.
    text = _ALL_FIELDS.sub(" (configs/base.py lists the fields)", str(error))
    lines = [line.strip() for line in text.splitlines() if line.strip()]
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


def from_json(text: str) -> ConfigDict:
    """The inverse of `to_json`."""

    def revive(value: Any) -> Any:
        if isinstance(value, dict):
            return {name: revive(field) for name, field in value.items()}
        return tuple(revive(item) for item in value) if isinstance(value, list) else value

    return ConfigDict(revive(json.loads(text)))


def changed_fields(old: dict, new: dict) -> dict[str, tuple[Any, Any]]:
    """Fields whose values differ: dotted name -> (old, new); absent ones are None."""
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
