"""Evaluations on the way: when asked for, with statistics, without a trace in training."""

import json

import jax
import numpy as np
import pytest
from tiny import mesh_of

from nlip_jax.checkpoint import restore_part
from nlip_jax.commands.evaluation import restored_run
from nlip_jax.sharding import replicated
from nlip_jax.train import loop
from nlip_jax.train.metrics import read_metrics

NORMED = (
    "--config.method=normed:make",
    "--config.mesh.rules=('.* -> fsdp',)",
    "--config.report.enabled=False",
    "--config.ema.decay=0.5",
    "--config.evaluation.bootstrap=0",
    "--config.checkpoint.keep=9",
)


@pytest.fixture
def train(command, tiny, tmp_path):
    def run(name, *arguments):
        return command("train", *tiny, *NORMED, f"--workdir={tmp_path / name}", *arguments)

    return run


def evaluations(workdir) -> dict[int, dict]:
    lines = read_metrics(workdir / "metrics.jsonl")
    return {line["step"]: line for line in lines if "eval/zero_shot/scenes/top1" in line}


def results(workdir) -> dict:
    found = json.loads((workdir / "results.json").read_text())
    return {name: value for name, value in found.items() if not name.startswith("time/")}


def last_params(workdir) -> str:
    lines = (workdir / "events.jsonl").read_text().splitlines()
    return next(line["params"] for line in map(json.loads, reversed(lines)) if "params" in line)


def test_evaluations_leave_no_trace_in_training(train, command, tmp_path, monkeypatch):
    """None, one an epoch (4 steps) in one go, and the same in two parts: one and the same run."""
    assert train("none")[0] == 0
    code, _, err = train("whole", "--config.evaluation.every=1 epochs")
    assert code == 0 and "step 4: evaluating" in err, err
    with monkeypatch.context() as patch:
        patch.setattr(loop.stop, "requested", lambda step=None: step == 6)
        assert train("parts", "--config.evaluation.every=4 steps")[0] == 75
    assert train("parts", "--config.evaluation.every=4 steps")[0] == 0

    none, whole, parts = (tmp_path / name for name in ("none", "whole", "parts"))
    assert last_params(none) == last_params(whole) == last_params(parts)
    assert results(none) == results(whole) == results(parts)
    assert list(evaluations(none)) == [12] and list(evaluations(whole)) == [4, 8, 12]
    assert evaluations(whole) == evaluations(parts)

    # The command finds the same, with the same averages of parameters and the same statistics.
    code, _, err = command("evaluate", f"--workdir={whole}", "--step=all")
    assert code == 0, err
    for step, line in evaluations(whole / "evaluate").items():
        assert line == evaluations(whole)[step]


def test_statistics_of_batches_take_part(train, command, tmp_path, monkeypatch):
    assert train("run", "--config.total=4 steps")[0] == 0
    everywhere = replicated(mesh_of(1))
    moments = jax.ShapeDtypeStruct((8,), np.float32, sharding=everywhere)
    wanted = {"model_state": {"batch_stats": {"norm": {"mean": moments, "var": moments}}}}
    state = restore_part(tmp_path / "run" / "checkpoints", 4, abstract=wanted)
    assert np.abs(state["model_state"]["batch_stats"]["norm"]["mean"]).min() > 0

    def forgetful(folder, step, *, abstract):
        state = restore_part(folder, step, abstract=abstract)
        return state | {"model_state": jax.tree.map(np.zeros_like, state["model_state"])}

    monkeypatch.setattr(restored_run, "restore_part", forgetful)
    code, _, err = command("evaluate", f"--workdir={tmp_path / 'run'}")
    assert code == 0, err
    (line,) = evaluations(tmp_path / "run" / "evaluate").values()
    assert line != evaluations(tmp_path / "run")[4]
