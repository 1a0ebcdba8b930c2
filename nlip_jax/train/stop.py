"""How a run is asked to stop, and how it notices.

The first SIGINT or SIGTERM asks: the loop saves a checkpoint and leaves with exit code 75. A second
SIGINT leaves at once with 130. With several processes, JAX's preemption service agrees on a step.
"""

import contextlib
import dataclasses
import os
import signal
import sys
from collections.abc import Callable, Iterator

import jax
from jax.experimental import multihost_utils

from nlip_jax.errors import Preempted

_requested = False
_after = "this step"
_limit: "_Limit | None" = None  # what `limited` plans


def install_handlers(*, after: str = "this step") -> None:
    """Takes over SIGINT and, where no service of JAX listens for it, SIGTERM.

    Args:
      after: when the run will stop, for the message.
    """
    global _after  # noqa: PLW0603
    _after = after
    signal.signal(signal.SIGINT, _on_interrupt)
    if not _is_distributed():
        signal.signal(signal.SIGTERM, _on_terminate)


@dataclasses.dataclass
class _Limit:
    """A stop that was planned."""

    is_over: Callable[[int | None], bool]
    reached: bool = False

    def look(self, step: int | None) -> bool:
        self.reached = self.reached or self.is_over(step)
        return self.reached


@contextlib.contextmanager
def limited(is_over: Callable[[int | None], bool]) -> Iterator[_Limit]:
    """Stops what is done inside, as if somebody had asked for it, when it is time.

    For a single process. `Preempted` is raised either way: `reached` of what this gives tells
    whether the limit was the reason.

    Args:
      is_over: step of the training loop, None elsewhere -> whether it is time.
    """
    global _limit  # noqa: PLW0603  asked where no argument leads
    _limit = _Limit(is_over)
    try:
        yield _limit
    finally:
        _limit = None


def requested(step: int | None = None) -> bool:
    """Whether to stop now; all processes get the same answer at the same step.

    Args:
      step: of the training loop; None elsewhere, where only a single process may stop.
    """
    if not _is_distributed():
        return _requested or (_limit is not None and _limit.look(step))
    return step is not None and multihost_utils.reached_preemption_sync_point(step)


def check() -> None:
    """Raises `Preempted` if the run was asked to stop: for work whose progress is already safe."""
    if requested():
        raise Preempted("stopped as asked; run the same command again to go on")


def _is_distributed() -> bool:
    return jax.distributed.is_initialized() and jax.process_count() > 1


def _on_interrupt(number: int, frame: object) -> None:
    del number, frame
    global _requested  # noqa: PLW0603  a signal has no other way to tell
    if _requested:
        os.write(sys.stderr.fileno(), b"\nstopped at once\n")
        os._exit(130)
    _requested = True
    text = f"\nstopping after {_after} (Ctrl-C again to leave at once) ...\n"
    os.write(sys.stderr.fileno(), text.encode())
    if _is_distributed():
        os.kill(os.getpid(), signal.SIGTERM)  # tells the preemption service, and so everyone


def _on_terminate(number: int, frame: object) -> None:
    del number, frame
    global _requested  # noqa: PLW0603
    _requested = True
