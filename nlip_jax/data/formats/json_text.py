"""JSON documents, and JSON lines."""

import json
from typing import Any


def load_json(text: str) -> Any:
    """A JSON document; of JSON lines, the list of them.

    Raises:
      ValueError: neither.
    """
    try:
        return json.loads(text)
    except RecursionError as error:
        raise ValueError("JSON nested too deeply") from error
    except json.JSONDecodeError as error:
        if not error.msg.startswith("Extra data"):
            raise
    return [_load_line(line, n) for n, line in enumerate(text.split("\n"), 1) if line.strip()]


def _load_line(line: str, number: int) -> Any:
    try:
        return json.loads(line)
    except (json.JSONDecodeError, RecursionError) as error:
        raise ValueError(f"line {number} is no JSON ({error})") from error
