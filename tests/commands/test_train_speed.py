"""A run says what it needs and how fast it is, and traces the steps that it was asked for."""

import pytest

from nlip_jax.train import loop
from nlip_jax.train.metrics import read_metrics

TRACES = "plugins/profile/*/*.xplane.pb"


@pytest.fixture
def clip(command, tiny, tmp_path):
    """Trains CLIP for six steps, in as many parts as a test likes."""

    def run(*arguments: str):
        return command(
            *("train", "--config=configs/quickstart.py:method=clip", *tiny[1:]),
            *("--config.total=6 steps", "--config.checkpoint.every=3 steps"),
            *(f"--workdir={tmp_path / 'w'}", *arguments),
        )

    return run


def test_a_run_that_is_stopped_and_goes_on(clip, monkeypatch, request, tmp_path):
    workdir = tmp_path / "w"
    monkeypatch.setattr(loop.stop, "requested", lambda step=None: step == 3)
    peak = "--config.log.peak_tflops=0.001"
    code, _, err = clip("--profile=3..5", peak)
    assert code == 75
    assert f"a trace of steps 3 to 3 is in {workdir / 'profile'}" in err
    assert "on each device: parameters" in err and "optimizer" in err and "activations" in err
    assert "loss: dense" in err
    assert "FLOP in training" in err and "MFU is a share of 0.001 TFLOP/s" in err
    assert "MFU " in next(line for line in err.splitlines() if line.startswith("step 2/6"))
    (line,) = (line for line in read_metrics(workdir / "metrics.jsonl") if line["step"] == 2)
    rates = ("examples_per_second", "examples_per_second_per_device", "mfu", "step_seconds")
    assert all(line[f"time/{name}"] > 0 for name in rates)
    assert line["time/data_wait_share"] >= 0
    assert line["time/examples_per_second_per_device"] * 8 == line["time/examples_per_second"]

    monkeypatch.undo()
    monkeypatch.chdir(request.config.rootpath)
    code, _, err = clip("--profile=3..5")
    assert code == 0, err
    assert "--profile=3..5: steps up to 3 are done already" in err
    assert "a trace of steps 4 to 5 is in" in err
    assert len(list((workdir / "profile").glob(TRACES))) == 2
    assert "config.log.peak_tflops" in err  # it is not known of a CPU
    lines = read_metrics(workdir / "metrics.jsonl")
    assert ["time/mfu" in line for line in lines if "train/loss" in line] == [True, False, False]

    code, out, _ = clip("--profile=3..5")
    assert code == 0 and "nothing is left for --profile=3..5" in out
