"""The file of `--json=FILE`: flat numbers by name."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from nlip_jax.errors import UsageError
from nlip_jax.files import json_text, write_atomically


def check_json_file(text: str, *, flag: str = "json") -> Path | None:
    """The file that a command may write its numbers to, None where none was asked for.

    Args:
      text: value of --json.
      flag: the name of another flag that names a file.

    Raises:
      UsageError: there is no folder to write it to, or one stands in its place.
    """
    if not text:
        return None
    path = Path(text).expanduser()
    if not path.absolute().parent.is_dir():
        raise UsageError(f"--{flag}={text}: there is no such folder; make it first")
    if path.is_dir():
        raise UsageError(f"--{flag}={text} is a folder; name a file in it")
    return path


def write_json_file(path: Path, numbers: Mapping[str, Any]) -> None:
    """Writes the numbers, or other plain values.

    Raises:
      UsageError: the file cannot be written.
    """
    try:
        write_atomically(path, (json_text(numbers, indent=2) + "\n").encode())
    except OSError as error:
        raise UsageError(f"--json={path} cannot be written: {error.strerror}") from error
