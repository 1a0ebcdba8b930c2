"""Files that are there whole or not at all, and JSON that every parser reads."""

import json
import math
import os
from pathlib import Path
from typing import Any


def write_atomically(path: str | os.PathLike, content: bytes) -> None:
    """Writes a file such that no reader and no kill ever meets half of it.

    Args:
      path: the file; what it held before stays until the new content is on disk.
      content: all of it.
    """
    path = Path(path)
    temporary = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def json_text(value: Any, *, indent: int | None = None) -> str:
    """JSON of plain data; numbers that are not finite, which JSON has no word for, become null."""

    def finite(part: Any) -> Any:
        if isinstance(part, dict):
            return {name: finite(inner) for name, inner in part.items()}
        if isinstance(part, list | tuple):
            return [finite(inner) for inner in part]
        return None if isinstance(part, float) and not math.isfinite(part) else part

    return json.dumps(finite(value), indent=indent, allow_nan=False)
