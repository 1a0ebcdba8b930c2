"""`--help`: the flags of a command, and every config field with its default and comment."""

import re
from pathlib import Path

from nlip_jax.commands.table import Command
from nlip_jax.errors import UsageError

_FIELD = re.compile(r"\s+c\.([\w.]+) = (.+?)(?:  # (.*))?$")
# Functions of configs/base.py -> where their fields stand in a config.
_BLOCKS = {
    "synthetic_source": "data.synthetic.",
    "indexed_source": "data.{tar|array_record|parquet|table|folder|labelled|...}.",
    "tar_source": "data.tar.",
    "array_record_source": "data.array_record.",
    "parquet_source": "data.parquet.",
    "table_source": "data.table.",
    "folder_source": "data.folder.",
    "labelled_source": "data.labelled.",
    "labelled_folder_source": "data.labelled_folder.",
    "tfds_source": "data.tfds.",
    "class_scenes": "evaluators.zero_shot.SET.",
    "get_config": "",
}


def describe(name: str, command: Command) -> str:
    """The help page of a command."""
    usage = f"usage: python -m nlip_jax {name}"
    usage += f" {'|'.join(command.choices)}" if command.choices else ""
    usage += " --config=FILE[:ARGUMENT] [--config.FIELD=VALUE ...]" if command.takes_config else ""
    lines = [usage + " [--FLAG=VALUE ...]", "", command.summary, ""]
    lines += [f"  --{flag}=VALUE  {text}" for flag, text in command.flags.items()]
    if command.takes_config:
        lines += ["  --config=FILE[:ARGUMENT]  the experiment, such as configs/quickstart.py", ""]
        lines += ["config fields, with the defaults of configs/base.py:", *config_fields()]
    return "\n".join(lines)


def config_fields() -> list[str]:
    """A line for each field of configs/base.py, read from its source."""
    path = Path(__file__).resolve().parents[2] / "configs" / "base.py"
    if not path.exists():
        raise UsageError(f"{path} is missing: run from a checkout of the repository")
    lines, block = [], ""
    for text in path.read_text().splitlines():
        if text.startswith("def "):
            block = text[4:].split("(")[0]
        match = _FIELD.match(text)
        if not match or "ConfigDict(" in match[2] or match[2].endswith(("_source()", "RUNTIME")):
            continue
        comment = f"  # {match[3]}" if match[3] else ""
        lines.append(f"  --config.{_BLOCKS[block]}{match[1]}={match[2]}{comment}")
    return lines
