"""Runs commands in processes of their own, one at a time, and passes signals on to them."""

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

_LAUNCHER = "nlip_jax.commands.sweeping.stops_with"
_POLL_SECONDS = 1.0


class Children:
    """The processes of a sweep; at most one is there at a time.

    Ctrl-C and SIGTERM are for the process that runs, and for what would come after it. The
    processes stand in process groups of their own, or a terminal would tell them a second time.
    """

    def __init__(self) -> None:
        self.interrupts = 0  # how often Ctrl-C came
        self.is_asked_to_stop = False
        self._process: subprocess.Popen | None = None

    @contextlib.contextmanager
    def listening(self) -> Iterator["Children"]:
        """Takes over SIGINT and SIGTERM, until the end of the block."""
        numbers = (signal.SIGINT, signal.SIGTERM)
        before = {number: signal.signal(number, self._pass_on) for number in numbers}
        try:
            yield self
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def run(
        self, command: list[str], *, log: Path, on_wait: Callable[[], None] = lambda: None
    ) -> int:
        """Runs a command to its end.

        Args:
          command: program and arguments.
          log: file that what it says is appended to.
          on_wait: called about once a second.

        Returns:
          Its exit code, negative where a signal ended it.
        """
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("ab") as file:
            self._process = subprocess.Popen(
                [sys.executable, "-m", _LAUNCHER, str(os.getpid()), *command],
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=subprocess.STDOUT,
                process_group=0,
            )
        try:
            if self.is_asked_to_stop:  # since the last look
                self._process.send_signal(signal.SIGTERM)
            while True:
                try:
                    return self._process.wait(timeout=_POLL_SECONDS)
                except subprocess.TimeoutExpired:
                    on_wait()
        finally:
            self._process = None

    def _pass_on(self, number: int, frame: object) -> None:
        del frame
        self.is_asked_to_stop = True
        self.interrupts += number == signal.SIGINT
        if self.interrupts == 1 and number == signal.SIGINT:
            text = "\nstopping after this step (Ctrl-C again to leave at once) ...\n"
            os.write(sys.stderr.fileno(), text.encode())
        if self._process is not None:
            # Where two were of no use, a third Ctrl-C ends it by force.
            self._process.send_signal(signal.SIGKILL if self.interrupts > 2 else number)

