"""`benchmark loss` and `benchmark pod`, at sizes that say nothing."""

import dataclasses
import json
import sys

import pytest

from nlip_jax.commands.benchmarks import loss, pod
from nlip_jax.commands.benchmarks.loss_case import LossCase, main, measure
from nlip_jax.errors import RunError, UsageError

TINY = {
    "batch": 24,
    "large_batch": 32,
    "dim": 8,
    "token_batch": 6,
    "tokens": (4, 3),
    "ring_batch": 4,
}


@pytest.fixture
def measured(monkeypatch) -> list[LossCase]:
    """The cases of a benchmark, with numbers that show where each of them goes."""
    cases = []

    def pretend(case: LossCase) -> dict:
        cases.append(case)
        slow, round_ = case.impl == "dense", len(cases)
        return {
            "seconds": [8.0 if slow else 2.0, 99.0 + round_][: case.calls],
            "resident_mb": 900.0 if slow else 310.0,
            "before_mb": 300.0,
            "temp_mb": float(case.devices),
        }

    monkeypatch.setattr(loss, "measure", pretend)
    return cases


def test_ratios_of_the_best_times_and_of_what_the_loss_takes(measured):
    numbers = loss.run(**TINY)
    assert numbers["loss/24/tiled_time_ratio"] == 0.25
    assert numbers["loss/24/tiled_memory_ratio"] == pytest.approx(10 / 600)
    assert numbers["loss/24/tiled_process_memory_ratio"] == pytest.approx(310 / 900)
    assert numbers["loss/32/tiled_peak_mb"] == 310.0
    assert numbers["loss/tokenwise_memory_ratio"] == pytest.approx(10 / 600)
    assert [numbers[f"loss/ring/{n}_devices_temp_mb"] for n in (1, 2, 4, 8)] == [1, 2, 4, 8]


def test_a_ring_keeps_the_rows_of_each_device(measured):
    loss.run(**TINY)
    ring = [case for case in measured if case.impl == "ring"]
    assert [case.batch // case.devices for case in ring] == [4, 4, 4, 4]
    assert all(case.calls == 0 for case in ring)  # compiled only


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize(("image_tokens", "text_tokens"), [(0, 0), (4, 3)])
def test_a_case_runs(image_tokens, text_tokens, capsys):
    tokens = {"image_tokens": image_tokens, "text_tokens": text_tokens}
    case = LossCase(impl="tiled", batch=10, dim=8, tile=4, calls=2, **tokens)
    main(json.dumps(dataclasses.asdict(case)))
    numbers = json.loads(capsys.readouterr().out)
    assert len(numbers["seconds"]) == 2
    assert 0 < numbers["before_mb"] <= numbers["resident_mb"]
    assert numbers["temp_mb"] > 0


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_a_failing_process_is_told_with_its_last_line():
    with pytest.raises(RunError, match="no_such_impl"):
        measure(LossCase(impl="no_such_impl", batch=4))


def test_without_libtpu_the_pod_says_what_to_install(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(UsageError, match=r"pip install nlip_jax\[plan\]"):
        pod.run()


def test_what_does_not_fit_a_chip_has_no_number(monkeypatch):
    def pretend(case: dict) -> dict | None:
        return None if case.get("impl") == "dense" else {"temp_mb": 1.0, "arguments_mb": 2.0}

    monkeypatch.setattr("importlib.util.find_spec", lambda name: object())
    monkeypatch.setattr(pod, "_compile", pretend)
    numbers = pod.run()
    assert numbers["pod/loss/1048576/ring_temp_mb"] == 1.0
    assert numbers["pod/vitb16/1048576/arguments_mb"] == 2.0
    assert not any("dense" in name for name in numbers)
