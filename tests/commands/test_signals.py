"""Ctrl-C once saves and leaves with 75; twice leaves at once with 130."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest

from nlip_jax.train.metrics import read_metrics


@pytest.fixture
def start(request, tiny, tmp_path):
    """Starts a long run in a process group of its own, and waits until it has trained a while."""
    started = []

    def begin(steps: int) -> subprocess.Popen:
        process = subprocess.Popen(
            [
                *(sys.executable, "-m", "nlip_jax", "train", *tiny, f"--workdir={tmp_path / 'w'}"),
                *("--config.total=100000 steps", "--config.checkpoint.every=50000 steps"),
                "--config.nlip.warmup=50000 steps",
            ],
            cwd=request.config.rootpath,
            stderr=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            text=True,
            start_new_session=True,
            env=dict(os.environ),
        )
        started.append(process)
        deadline = time.monotonic() + 240
        while time.monotonic() < deadline and process.poll() is None:
            lines = read_metrics(tmp_path / "w" / "metrics.jsonl")
            if lines and lines[-1]["step"] >= steps:
                return process
            time.sleep(0.05)
        process.kill()
        raise AssertionError(process.communicate()[1])

    yield begin
    for process in started:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def test_ctrl_c(start, tmp_path):
    run = start(steps=10)
    os.killpg(run.pid, signal.SIGINT)
    _, err = run.communicate(timeout=120)
    assert run.returncode == 75
    assert "run the same command again" in err and "Traceback" not in err
    (saved,) = [int(p.name) for p in (tmp_path / "w" / "checkpoints").iterdir()]
    assert read_metrics(tmp_path / "w" / "metrics.jsonl")[-1]["step"] <= saved

    run = start(steps=saved + 10)  # goes on from there; each step stands once
    while run.poll() is None:  # the second one comes while the first is still being served
        os.killpg(run.pid, signal.SIGINT)
        time.sleep(0.001)
    _, err = run.communicate()
    assert run.returncode == 130, err
    assert "Traceback" not in err
    steps = [line["step"] for line in read_metrics(tmp_path / "w" / "metrics.jsonl")]
    assert steps == sorted(set(steps)) and steps[-1] > saved
    first = json.loads((tmp_path / "w" / "events.jsonl").read_text().splitlines()[0])
    assert first["phase"] == "start"
