"""`python -m nlip_jax.commands.sweeping.stops_with PID COMMAND ...`: becomes the command.

Before that it asks the kernel (of Linux) for a SIGTERM once the process PID, which started this
one, is gone: what a killed sweep has started stops well, rather than going on alone.
"""

import ctypes
import os
import signal
import sys

_PR_SET_PDEATHSIG = 1  # linux/prctl.h


def main(parent: int, command: list[str]) -> None:
    """Does what the module says; does not return.

    Args:
      parent: process that started this one.
      command: program and arguments.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
        if os.getppid() != parent:  # it ended before the order reached the kernel
            sys.exit(1)
    os.execvp(command[0], command)


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2:])
