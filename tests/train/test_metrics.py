"""metrics.jsonl: each step once, whatever was killed; and the progress line."""

import contextlib
import io
import json
import sys
import threading
import time

import numpy as np
import pytest

from nlip_jax.data.pipeline import Reading
from nlip_jax.train import metrics, stalls
from nlip_jax.train.metrics import MetricsLog, Progress, read_metrics


def lines(workdir) -> list[dict]:
    return [json.loads(text) for text in (workdir / "metrics.jsonl").read_text().splitlines()]


def train(workdir, *, start: int, stop: int) -> None:
    """Logs each step; every fourth also has an evaluation, as the loop makes it."""
    log = MetricsLog(workdir, resume_step=start, tensorboard=False)
    for step in range(start, stop + 1):
        if step > start:
            log.write(step, {"train/loss": 1.0 / step})
        if step and step % 4 == 0:
            log.write(step, {"eval/recall": 0.1 * step})
    log.close()


def test_a_resumed_run_writes_what_an_uninterrupted_one_writes(tmp_path):
    for name in ("whole", "killed"):
        (tmp_path / name).mkdir()
    train(tmp_path / "whole", start=0, stop=12)
    for resumed_at, killed_at in ((0, 7), (4, 9), (8, 8), (8, 10), (4, 6), (4, 12)):
        train(tmp_path / "killed", start=resumed_at, stop=killed_at)
    assert lines(tmp_path / "killed") == lines(tmp_path / "whole")


def test_a_torn_last_line_is_dropped(tmp_path):
    train(tmp_path, start=0, stop=5)
    whole = lines(tmp_path)
    path = tmp_path / "metrics.jsonl"
    with path.open("a") as file:
        file.write('{"step": 6, "train/lo')
    assert read_metrics(path) == whole
    train(tmp_path, start=5, stop=6)
    assert [line["step"] for line in lines(tmp_path) if "train/loss" in line] == [1, 2, 3, 4, 5, 6]


def test_no_file_no_lines(tmp_path):
    assert read_metrics(tmp_path / "metrics.jsonl") == []
    MetricsLog(tmp_path, resume_step=3, tensorboard=False).close()
    assert lines(tmp_path) == []


def test_tensorboard_gets_every_value(tmp_path, monkeypatch):
    written, options = [], {}

    class Writer:
        def __init__(self, folder, **kwargs):
            options.update(kwargs, folder=folder)

        def add_scalar(self, name, value, step):
            written.append((name, value, step))

        def close(self):
            written.append("closed")

    monkeypatch.setattr(metrics, "SummaryWriter", Writer)
    log = MetricsLog(tmp_path, resume_step=4, tensorboard=True)
    log.write(5, {"train/loss": 2.0, "train/grad_norm": 3.0})
    log.close()
    assert written == [("train/loss", 2.0, 5), ("train/grad_norm", 3.0, 5), "closed"]
    assert options == {"folder": str(tmp_path / "tensorboard"), "purge_step": 5}


def test_tensorboard_events_are_written(tmp_path):
    log = MetricsLog(tmp_path, resume_step=0, tensorboard=True)
    log.write(1, {"train/loss": 2.0})
    log.close()
    events = list((tmp_path / "tensorboard").iterdir())
    assert events and b"train/loss" in events[0].read_bytes()


class Clock:
    def __init__(self):
        self.now = 0.0

    def perf_counter(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch):
    made = Clock()
    monkeypatch.setattr(metrics, "time", made)
    return made


def test_the_progress_line(clock, capsys):
    progress = Progress(total=100, batch_size=8, reading=Reading(), devices=4, peak_rate=80.0)
    progress.start(10)
    clock.now = 4.0
    progress.data.add(waited=0.25, copied=0.05, stages=np.zeros(4))
    speeds = progress.report(20, loss=1.25)
    assert speeds == {
        "time/examples_per_second": 20.0,
        "time/examples_per_second_per_device": 5.0,
        "time/step_seconds": 0.4,
        "time/data_wait_share": pytest.approx(0.075),
        "time/mfu": 0.25,
    }
    assert capsys.readouterr().err == (
        "step 20/100  loss 1.2500  20 examples/s (5/device)  0.4 s/step  MFU 25.0%  data wait 8%  "
        "ETA 0m32s\n"
    )
    clock.now = 5.0  # the clock began anew with the report
    assert progress.report(22, loss=1.0)["time/step_seconds"] == 0.5


def test_no_mfu_where_the_peak_is_not_known(clock, capsys):
    progress = Progress(total=100, batch_size=8, reading=Reading())
    progress.start(10)
    clock.now = 4.0
    assert "time/mfu" not in progress.report(20, loss=1.25)
    assert "MFU" not in capsys.readouterr().err


def test_a_terminal_keeps_one_line(clock, monkeypatch):
    terminal = io.StringIO()
    terminal.isatty = lambda: True
    monkeypatch.setattr(sys, "stderr", terminal)
    progress = Progress(total=2, batch_size=1, reading=Reading())
    progress.start(0)
    clock.now = 7200.0
    progress.report(1, loss=0.5)
    clock.now = 14400.0
    progress.report(2, loss=0.5)
    first, second = terminal.getvalue().removesuffix("\n").split("\r\x1b[K")[1:]
    assert "\n" not in first and "ETA 2h00m" in first and "ETA 0m00s" in second


# --- stalls ---------------------------------------------------------------------------------------
def explained(*, waited=0.0, copied=0.0, stages=(0.0, 0.0, 0.0, 0.0), workers=1, cores=8) -> str:
    time = stalls.DataTime()
    time.add(waited=waited, copied=copied, stages=np.array(stages))
    return stalls.explain(time, seconds=10.0, reading=Reading(workers=workers), cores=cores)


def test_the_slow_stage_is_named_with_what_to_change():
    text = explained(waited=5.0, stages=(1.0, 7.0, 1.0, 1.0))
    assert "waited for data 50% of the time" in text and "decode (70% of making a row)" in text
    assert "raise config.data.workers from 1 to 2 (this host has 8 cores)" in text
    text = explained(waited=8.0, stages=(1.0, 30.0, 6.0, 1.0), workers=2, cores=2)
    assert "all 2 cores are in use where about 19 are needed" in text and "prepare" in text
    assert "cache_dir" in explained(waited=3.0, stages=(4.0, 1.0, 1.0, 0.0), workers=4, cores=8)
    assert "copying batches" in explained(waited=1.0, copied=2.0, stages=(0.0, 9.0, 0.0, 0.0))
    assert "rows came slowly" in explained(waited=9.0)


def test_a_stall_is_told_once_for_each_slow_stage(clock, capsys):
    progress = Progress(total=100, batch_size=8, reading=Reading())
    progress.start(0)
    blamed = []
    for step, slow in enumerate((1, 1, 3, 1), start=1):
        clock.now = float(step)
        progress.data.add(waited=0.5, copied=0.0, stages=np.eye(4)[slow])
        progress.report(step, loss=1.0)
        blamed.append("slow stage" in capsys.readouterr().err)
    assert blamed == [True, False, True, False]


def test_images_in_memory_are_out_of_reach_of_workers():
    time = stalls.DataTime(waited=5.0, stages=np.array([0.0, 7.0, 1.0, 1.0]))
    text = stalls.explain(time, seconds=10.0, reading=Reading(in_memory=True), cores=8)
    assert "set config.data.cache to 'none' and raise config.data.workers from 0 to 2" in text


class Step:
    """The result of a step that the devices are working on."""

    def __init__(self):
        self.done = threading.Event()

    def block_until_ready(self):
        self.done.wait(60)
        return self


def test_the_devices_wait_only_when_they_have_nothing_to_do():
    with contextlib.closing(stalls.DeviceWatch()) as devices:
        assert devices.idle(0.0, 9.0) == 0  # before the first step
        first, second = Step(), Step()
        devices.follow({"loss": first})
        devices.follow({"loss": second})
        first.done.set()
        asked = time.perf_counter()
        assert devices.idle(asked, asked + 9) == 0  # busy with the second
        second.done.set()
        finished = devices._finished.result(60)
        assert devices.idle(asked, finished + 2) == pytest.approx(2)
        assert devices.idle(finished + 1, finished + 2) == pytest.approx(1)
        assert devices.idle(asked, finished) == 0
