import sys

import numpy as np
import pytest

from nlip_jax.commands.benchmarks import mixture
from nlip_jax.errors import UsageError


def test_benchmark_reports_ratio_and_errors():
    pytest.importorskip("sklearn")
    metrics = mixture.run(num_losses=5000)
    assert set(metrics) == {
        "mixture/time_ratio_vs_sklearn",
        "mixture/parameter_error",
        "mixture/posterior_error",
        "mixture/seconds_ours",
        "mixture/seconds_sklearn",
    }
    # scikit-learn's random start alone moves its own answer by a percent or two.
    assert metrics["mixture/parameter_error"] < 0.03
    assert metrics["mixture/posterior_error"] < 0.02
    ratio = metrics["mixture/seconds_ours"] / metrics["mixture/seconds_sklearn"]
    assert metrics["mixture/time_ratio_vs_sklearn"] == pytest.approx(ratio)


def test_losses_have_two_modes_and_a_seed():
    losses = mixture.two_modes(20000, seed=3)
    assert losses.dtype == np.float32
    assert np.mean(losses) == pytest.approx(2.8, abs=0.05)
    assert np.var(losses) == pytest.approx(1 + 0.24 * 4, abs=0.05)
    np.testing.assert_array_equal(losses, mixture.two_modes(20000, seed=3))


def test_without_scikit_learn_the_remedy_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "sklearn", None)
    monkeypatch.delitem(sys.modules, "sklearn.mixture", raising=False)
    with pytest.raises(UsageError, match=r"pip install nlip_jax\[eval\]"):
        mixture.run(num_losses=10)
