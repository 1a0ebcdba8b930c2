"""`replay`: a step of a run comes out again bit for bit, and nothing of the run is touched."""

import json
import re
import shutil

import pytest

from nlip_jax.commands.workdir import lock
from nlip_jax.train.metrics import read_metrics


@pytest.fixture(scope="module")
def shared_runs():
    return {}


@pytest.fixture
def finished(shared_runs, command, tiny, tmp_path_factory):
    """(workdir, what was printed) of a run with too high a learning rate, made once."""
    if not shared_runs:
        workdir = tmp_path_factory.mktemp("runs") / "tiny"
        code, _, err = command(
            "train",
            *tiny,
            f"--workdir={workdir}",
            "--config.nlip.warmup=4 steps",
            "--config.optimizer.learning_rate=0.1",
            "--config.spikes.window=2 steps",
            "--config.spikes.z_score=3.0",
            "--config.report.enabled=False",
        )
        assert code == 0, err
        shared_runs["run"] = workdir, err
    return shared_runs["run"]


def contents(workdir) -> dict[str, tuple]:
    files = (path for path in workdir.rglob("*") if path.is_file())
    return {str(p.relative_to(workdir)): (p.stat().st_mtime_ns, p.read_bytes()) for p in files}


def test_a_run_leaves_what_a_replay_needs(finished):
    workdir, err = finished
    assert [line["step"] for line in read_metrics(workdir / "spikes.jsonl")] == [4, 7]
    assert err.count("is a spike") == 2
    assert f"`python -m nlip_jax replay --workdir={workdir} --step=7`" in err
    # Two are kept, and the one before step 7.
    assert {p.name for p in (workdir / "checkpoints").iterdir()} == {"4", "8", "12"}
    (line, *_) = read_metrics(workdir / "metrics.jsonl")
    assert {f"train/grad_norm/{name}" for name in ("image", "text", "log_scale")} <= line.keys()


@pytest.mark.parametrize(
    ("step", "beginning"),
    [(4, "4 steps from the start"), (7, "3 steps from the checkpoint of step 4")],
)
def test_a_spike_comes_out_again(finished, command, tmp_path, step, beginning):
    """While someone else works in the folder; across the refresh at step 4."""
    workdir, _ = finished
    spike = next(line for line in read_metrics(workdir / "spikes.jsonl") if line["step"] == step)
    before = contents(workdir)
    with lock(workdir):
        code, out, err = command(
            "replay",
            f"--workdir={workdir}",
            f"--step={step}",
            "--top=3",
            f"--json={tmp_path / 'numbers.json'}",
            f"--page={tmp_path / 'page.html'}",
        )
    assert code == 0, err
    assert contents(workdir).keys() - before.keys() <= {".lock"}
    assert all(contents(workdir)[name] == before[name] for name in before.keys() - {".lock"})

    assert f"repeating {beginning}" in err
    assert f"step {step}: loss" in out and "bit for bit what spikes.jsonl says" in out
    numbers = json.loads((tmp_path / "numbers.json").read_text())
    assert numbers["replay/loss"] == numbers["replay/recorded_loss"] == spike["loss"]
    assert numbers["replay/loss_z"] == spike["z"] and numbers["replay/is_recorded_loss"] == 1
    for name in ("grad_norm", "grad_norm/image", "grad_norm/text"):
        assert numbers[f"replay/{name}"] == spike[name]

    losses = [numbers[f"replay/pair/{rank}/loss"] for rank in (1, 2, 3)]
    assert losses == sorted(losses, reverse=True) and losses[2] > 0
    ids = [int(numbers[f"replay/pair/{rank}/example_id"]) for rank in (1, 2, 3)]
    assert len(set(ids)) == 3 and set(ids) <= set(spike["example_ids"])
    page = (tmp_path / "page.html").read_text()
    assert page.count("<img") == 3 and f"#{ids[0]}" in page and f"train/{ids[0]} in" in page


def test_a_step_without_a_spike(finished, command):
    workdir, _ = finished
    code, out, err = command("replay", f"--workdir={workdir}", "--step=10")
    assert code == 0 and "2 steps from the checkpoint of step 8" in err
    assert "bit for bit what metrics.jsonl says" in out and "the 10 pairs" in out


def test_a_loss_that_comes_out_differently_is_said(finished, command, tmp_path):
    workdir = shutil.copytree(finished[0], tmp_path / "copy")
    (workdir / "spikes.jsonl").write_text('{"step": 9, "loss": 1.5}\n')
    code, out, _ = command("replay", f"--workdir={workdir}", "--step=9", "--top=1")
    assert code == 0 and "where spikes.jsonl says 1.5" in out


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--step=7", "--workdir="], "--workdir=FOLDER of a run is missing"),
        (["--step=7", "--workdir={parent}"], "is no folder of a run: it has no config.json"),
        (["--step=7", "--workdir={parent}/none"], "is no folder of a run"),
        (["--step=13"], "--step=13: the run in .* has 12 steps"),
        (["--step=0"], "--step=0: must be a whole number, 1 or more"),
        (["--step=7", "--top=some"], "--top=some: must be a whole number"),
        ([], "--step=: must be"),
        (["--step=7", "--page={parent}/none/page.html"], "--page=.*no such folder"),
        (["--step=7", "--json={parent}"], "--json=.* is a folder"),
        (["--stop=7"], "Unknown command line flag 'stop'"),
        (["--step=7", "again"], "unexpected argument 'again'"),
    ],
)
def test_wrong_input(finished, command, arguments, words):
    workdir, _ = finished
    given = [argument.format(parent=workdir.parent) for argument in arguments]
    code, _, err = command("replay", f"--workdir={workdir}", *given)
    assert code == 2 and len(err.splitlines()) == 1
    assert re.search(words, err), err


def test_what_a_run_has_lost(finished, command, tmp_path):
    workdir = shutil.copytree(finished[0], tmp_path / "copy")
    (workdir / "columns" / "noise_prob" / "0001" / "DONE").unlink()
    code, _, err = command("replay", f"--workdir={workdir}", "--step=7")
    assert code == 2 and "has not come to episode 1 yet" in err
    description = json.loads((workdir / "data.json").read_text()) | {"fingerprint": "other"}
    (workdir / "data.json").write_text(json.dumps(description))
    code, _, err = command("replay", f"--workdir={workdir}", "--step=7")
    assert code == 2 and "changed: fingerprint was 'other'" in err


def test_a_step_after_one_that_is_not_finite(command, tiny, tmp_path):
    workdir = tmp_path / "w"
    code, _, err = command(
        "train",
        *tiny,
        f"--workdir={workdir}",
        "--config.method=clip",
        "--config.optimizer.learning_rate=1e30",
        "--config.optimizer.clip_norm=0.0",
        "--config.schedule.warmup=0 steps",
        "--config.total=6 steps",
        "--config.spikes.action=skip",
        "--config.report.enabled=False",
    )
    assert code == 1 and "features that are not finite" in err  # at its end, when it is evaluated
    text = (workdir / "spikes.jsonl").read_text() + (workdir / "metrics.jsonl").read_text()
    assert "null" in text and "NaN" not in text  # JSON has no word for it
    code, out, err = command("replay", f"--workdir={workdir}", "--step=6")
    assert code == 0, err
    assert "bit for bit" in out
