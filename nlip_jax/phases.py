"""Where a run is: one call at each turn of it, written down as it happens.

The lines of `events.jsonl` tell where the time of a run went (and of its killed predecessors).
Fault injection: with NLIP_JAX_KILL_AT set to a phase ("loss_pass", or "checkpoint step=20" where
a phase recurs), the process kills itself there as `kill -9` would.
"""

import json
import os
import signal
import time
from pathlib import Path

_log: Path | None = None


def start_log(path: Path | None) -> None:
    """Appends the phases from now on to this file (None: to none); one process of a run does."""
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
    target = os.environ.get("NLIP_JAX_KILL_AT")
    if target and target in (name, *(f"{name} {key}={value}" for key, value in details.items())):
        os.kill(os.getpid(), signal.SIGKILL)
