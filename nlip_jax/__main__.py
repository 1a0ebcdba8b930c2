"""`python -m nlip_jax COMMAND`: finds the command, runs it, turns errors into exit codes."""

import importlib
import logging
import os
import signal
import sys

from nlip_jax.commands.help_text import describe
from nlip_jax.commands.table import COMMANDS, overview
from nlip_jax.errors import Preempted, RunError, UsageError


def main(argv: list[str] | None = None) -> int:
    """Runs `COMMAND ARGS...`; returns 0 done, 1 failed, 2 bad usage, 75 stopped as asked."""
    argv = sys.argv[1:] if argv is None else argv
    logging.basicConfig(level=logging.WARNING, format="%(message)s", stream=sys.stderr)
    logging.getLogger("nlip_jax").setLevel(logging.INFO)
    if not argv or argv[0] in ("help", "-h", "--help"):
        print(overview())
        return 0 if argv else 2
    name, rest = argv[0], argv[1:]
    try:
        if name not in COMMANDS:
            raise UsageError(f"no such command; choose one of {', '.join(COMMANDS)}")
        if {"-h", "--help"} & set(rest):
            print(describe(name, COMMANDS[name]))
            return 0
        return importlib.import_module(f"nlip_jax.commands.{name}_command").main(rest)
    except (UsageError, RunError, Preempted) as error:
        print(f"nlip_jax {name}: {error}", file=sys.stderr)
        if not isinstance(error, Preempted):
            _leave_the_others(error.exit_code)
        return error.exit_code
    except KeyboardInterrupt:
        print(f"nlip_jax {name}: stopped at once", file=sys.stderr)
        return 130


def _leave_the_others(code: int) -> None:
    """Ends one of several processes at once: an orderly exit would wait for all the others."""
    jax = sys.modules.get("jax")
    if jax is not None and jax.distributed.is_initialized() and jax.process_count() > 1:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def _stop_at_once(number: int, frame: object) -> None:
    """Ctrl-C before a command has handlers of its own: what it wrote so far is whole anyway.

    An exception would not do: raised while a library runs one of its callbacks it is lost.
    """
    del number, frame
    os.write(2, b"nlip_jax: stopped at once\n")
    os._exit(130)


if __name__ == "__main__":
    signal.signal(signal.SIGINT, _stop_at_once)
    sys.exit(main())
