"""Learning rates: the rise, the peak, the fall."""

import numpy as np
import pytest

from nlip_jax.errors import UsageError
from nlip_jax.train.schedule import make_schedule


def rates(steps, **fields) -> list[float]:
    defaults = {"peak": 2.0, "warmup": 4, "total": 14}
    schedule = make_schedule(**(defaults | fields))
    return [float(schedule(np.int32(step))) for step in steps]


@pytest.mark.parametrize("name", ["constant", "cosine", "linear", "rsqrt"])
def test_the_rise_is_linear_and_begins_above_zero(name):
    np.testing.assert_allclose(rates(range(5), name=name), [0.5, 1.0, 1.5, 2.0, 2.0], rtol=1e-6)


@pytest.mark.parametrize("name", ["constant", "cosine", "linear", "rsqrt"])
def test_without_a_rise_the_first_step_has_the_peak(name):
    assert rates([0], name=name, warmup=0) == [2.0]


def test_a_rise_of_one_step():
    assert rates([0, 1], name="constant", warmup=1) == [2.0, 2.0]


def test_the_falls():
    steps = [4, 9, 14, 20]
    cosine = [2.0, 1.0, 0.0, 0.0]
    np.testing.assert_allclose(rates(steps, name="cosine"), cosine, atol=1e-6)
    np.testing.assert_allclose(rates(steps, name="linear"), cosine, atol=1e-6)
    np.testing.assert_allclose(rates([14, 20], name="cosine", end=0.1), [0.2, 0.2], rtol=1e-5)
    np.testing.assert_allclose(rates([9, 14], name="linear", end=0.5), [1.5, 1.0], rtol=1e-6)
    assert rates(steps, name="constant") == [2.0] * 4
    falling = rates([4, 14, 34], name="rsqrt", timescale=10)
    np.testing.assert_allclose(falling, [2.0, 2.0 / 2**0.5, 1.0], rtol=1e-6)


def test_schedules_that_are_refused():
    with pytest.raises(UsageError, match=r"schedule\.name='step'.*constant, cosine, linear, rsqrt"):
        rates([0], name="step")
    with pytest.raises(UsageError, match=r"warmup lasts 15 steps, longer than the run of 14"):
        rates([0], name="cosine", warmup=15)
    with pytest.raises(UsageError, match=r"schedule\.timescale"):
        rates([0], name="rsqrt", timescale=0)
