"""The arithmetic of a sweep, and how it reads."""

import json
import math

import numpy as np
import pytest

from nlip_jax.commands.sweeping.found import read_clock, read_last_step
from nlip_jax.commands.sweeping.statistics import Spread, share_closed, shares_closed, spread
from nlip_jax.commands.sweeping.table import format_spread


def test_spread_is_the_sample_standard_deviation():
    values = [0.5, 0.7, 0.9]
    found = spread(values)
    assert found.mean == pytest.approx(np.mean(values))
    assert found.deviation == pytest.approx(np.std(values, ddof=1))
    assert found.count == 3
    one = spread([0.5])
    assert one.mean == 0.5 and math.isnan(one.deviation) and one.count == 1
    assert math.isnan(spread([]).mean) and spread([]).count == 0
    assert math.isnan(spread([0.5, math.nan]).mean)


def test_share_of_the_gap():
    assert share_closed(arm=0.6, baseline=0.4, ceiling=0.8) == pytest.approx(0.5)
    assert share_closed(arm=0.3, baseline=0.4, ceiling=0.8) == pytest.approx(-0.25)
    assert share_closed(arm=0.9, baseline=0.4, ceiling=0.8) == pytest.approx(1.25)
    assert math.isnan(share_closed(arm=0.6, baseline=0.8, ceiling=0.8))
    assert math.isnan(share_closed(arm=0.6, baseline=0.8, ceiling=0.4))


def test_each_seed_closes_a_gap_of_its_own():
    shares = shares_closed(
        {0: 0.6, 1: 0.5, 2: 0.7},
        baseline={0: 0.4, 1: 0.4, 3: 0.4},
        ceiling={0: 0.8, 1: 0.6, 2: 0.9},
    )
    assert shares == {0: pytest.approx(0.5), 1: pytest.approx(0.5)}


@pytest.mark.parametrize(
    ("name", "mean", "deviation", "text"),
    [
        ("zero_shot/scenes/top1", 0.745, 0.0081, "74.5 ± 0.8 %"),
        ("zero_shot/scenes/top1", 0.745, math.nan, "74.5 %"),
        ("zero_shot/scenes/top1_closed", 0.541, 0.06, "54 ± 6 %"),
        ("zero_shot/scenes/top1_closed", math.nan, math.nan, "no gap"),
        ("caption/scenes/cider", 1.352, 0.01, "135.2 ± 1.0"),
        ("noise/auc", 0.9904, 0.0012, "0.990 ± 0.001"),
        ("time/seconds", 204.4, 3.0, "3 min 24 s"),
        ("noise/auc", math.nan, math.nan, "NaN"),
    ],
)
def test_how_a_spread_reads(name, mean, deviation, text):
    assert format_spread(name, Spread(mean=mean, deviation=deviation, count=3)) == text


def test_the_clock_stands_while_a_run_is_stopped(tmp_path):
    path = tmp_path / "events.jsonl"
    phases = [
        *(("start", 100), ("compile", 101), ("train", 105), ("refresh", 120)),
        *(("loss_pass", 121), ("mixture_fit", 126), ("train", 130), ("checkpoint", 140)),
        *(("start", 1000), ("train", 1004), ("refresh", 1010), ("train", 1013), ("done", 1020)),
    ]
    lines = [json.dumps({"phase": name, "time": time}) for name, time in phases]
    path.write_text("\n".join(lines) + '\n{"phase": "cut')
    clock = read_clock(path)
    assert clock.seconds == 40 + 20
    assert clock.pass_seconds == 10 + 3
    assert read_clock(tmp_path / "none").seconds == 0


def test_the_last_step_is_one_of_training(tmp_path):
    path = tmp_path / "metrics.jsonl"
    assert read_last_step(path) == {}
    lines = [{"step": 5, "train/loss": 2.0}, {"step": 5, "eval/top1": 0.5}]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines) + '{"step": 1')
    assert read_last_step(path) == lines[0]
