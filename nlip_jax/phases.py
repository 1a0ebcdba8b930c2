"""Where a run is: one call at each turn of it, written down as it happens.

The lines of `events.jsonl` tell where the time of a run went (and of its killed predecessors).
A test that must stop a run in a phase that takes a millisecond sets NLIP_JAX_HOLD to its name:
the run then waits there until it is killed.
"""

import json
import os
import time
from pathlib import Path

_log: Path | None = None


def start_log(path: Path) -> None:
    """Appends the phases from now on to this file; only one process of a run should."""
    global _log  # noqa: PLW0603  a process trains one run
    _log = path


def enter(name: str, **details: int | float | str) -> None:
    """Says that the run enters a phase.

    Args:
      name: the phase, such as "train" or "column_before_done".
      **details: plain values worth keeping, such as the step.
    """
    if _log is not None:
        line = json.dumps({"phase": name, **details, "time": time.time()})
        with _log.open("a") as file:
            file.write(line + "\n")
    if os.environ.get("NLIP_JAX_HOLD") == name:
        while True:
            time.sleep(60)
