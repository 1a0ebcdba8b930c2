"""A stop that was planned, beside those that somebody asks for."""

import pytest

from nlip_jax.errors import Preempted
from nlip_jax.train import stop


@pytest.fixture(autouse=True)
def nobody_asked_to_stop(monkeypatch):
    monkeypatch.setattr(stop, "_requested", False)


def test_it_is_asked_with_the_step_and_holds():
    steps = []

    def is_over(step):
        steps.append(step)
        return step == 3

    with stop.limited(is_over) as limit:
        assert not stop.requested(2) and not stop.requested() and not limit.reached
        assert stop.requested(3) and limit.reached
        with pytest.raises(Preempted):
            stop.check()  # once reached, it stays so
    assert steps == [2, None, 3]
    assert not stop.requested(3)


def test_somebody_who_asks_is_not_taken_for_the_limit(monkeypatch):
    with stop.limited(lambda step: False) as limit:
        monkeypatch.setattr(stop, "_requested", True)
        with pytest.raises(Preempted):
            stop.check()
        assert not limit.reached


def test_it_ends_with_what_raises_inside():
    with pytest.raises(ZeroDivisionError), stop.limited(lambda step: True):
        raise ZeroDivisionError
    assert not stop.requested(5)
