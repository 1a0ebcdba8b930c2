"""A stop that was planned: at a moment, or at a step of the training loop."""

import math
import time

import pytest

from nlip_jax.errors import Preempted
from nlip_jax.train import stop


@pytest.fixture(autouse=True)
def nobody_asked_to_stop(monkeypatch):
    monkeypatch.setattr(stop, "_requested", False)


def test_at_a_step():
    with stop.limited(moment=math.inf, steps=3) as limit:
        assert not stop.requested(2) and not stop.requested() and not limit.reached
        assert stop.requested(3) and limit.reached
        assert not stop.requested()  # elsewhere there are no steps
    assert not stop.requested(99)


def test_at_a_moment():
    with stop.limited(moment=time.monotonic() - 1, steps=10**9) as limit:
        with pytest.raises(Preempted):
            stop.check()
        assert limit.reached
    stop.check()


def test_somebody_who_asks_is_not_taken_for_the_limit(monkeypatch):
    with stop.limited(moment=math.inf, steps=10**9) as limit:
        monkeypatch.setattr(stop, "_requested", True)
        with pytest.raises(Preempted):
            stop.check()
        assert not limit.reached


def test_it_ends_with_what_raises_inside():
    with pytest.raises(ZeroDivisionError), stop.limited(moment=0.0, steps=1):
        raise ZeroDivisionError
    assert not stop.requested(5)
