"""Stopping as asked, between two sets and while there is nothing to evaluate yet."""

import math
import time
from collections.abc import Callable

from nlip_jax.errors import Preempted
from nlip_jax.train import stop

_SLICE = 0.2  # seconds between two looks whether to stop


class Check:
    """Looks whether to stop; all processes call it alike, and agree on which call stops them."""

    def __init__(self) -> None:
        self._calls = 0

    def __call__(self) -> None:
        """Raises `Preempted` if asked to stop."""
        self._calls += 1
        if stop.requested(self._calls):
            raise Preempted("stopped as asked; run the same command again to go on")


def wait(seconds: float, check: Callable[[], None]) -> None:
    """Sleeps, with as many looks whether to stop on all processes, whatever their clocks say."""
    slices = math.ceil(seconds / _SLICE)
    for _ in range(slices):
        check()
        time.sleep(seconds / slices)
