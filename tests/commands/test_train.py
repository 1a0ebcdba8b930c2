import json

import jax
import pytest

from nlip_jax.train import loop, stop


@pytest.fixture(scope="module")
def shared_runs():
    return {}


@pytest.fixture
def finished(shared_runs, command, tiny, tmp_path_factory):
    """A finished run, made once: (workdir, what it printed, compilations of its step)."""
    if not shared_runs:
        workdir = tmp_path_factory.mktemp("runs") / "tiny"
        compiled = []

        def count(event, duration, **details):
            if event.endswith("jaxpr_to_mlir_module_duration"):
                compiled.append(details.get("fun_name", "?"))

        jax.monitoring.register_event_duration_secs_listener(count)
        code, out, err = command("train", *tiny, f"--workdir={workdir}")
        assert code == 0, err
        shared_runs["run"] = workdir, out, compiled
    return shared_runs["run"]


def test_a_run_leaves_what_the_contract_promises(finished):
    workdir, out, _ = finished
    results = json.loads((workdir / "results.json").read_text())
    assert {
        "noise/auc",
        "noise/auc_incomplete",
        "noise/auc_irrelevant",
        "noise/auc_all",
        "zero_shot/scenes/top1",
        "retrieval/scenes/image_to_text/recall@1",
        "retrieval/scenes/text_to_image/recall@10",
        "step",
    } <= results.keys()
    assert all(isinstance(value, int | float) for value in results.values())
    config = json.loads((workdir / "config.json").read_text())
    assert config["total"] == "12 steps" and config["method"] == "nlip"
    lines = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    assert [x["step"] for x in lines if "train/loss" in x] == [2, 4, 6, 8, 10, 12]
    assert list((workdir / "tensorboard").iterdir())
    assert (workdir / "columns" / "noise_prob" / "0001" / "DONE").exists()
    page = (workdir / "report.html").read_text()
    assert "noise" in page and "http-equiv" in page
    assert "recall@1" in out and "report.html" in out


def test_the_step_compiles_once(finished):
    _, _, compiled = finished
    assert sum("train_step" in str(name) for name in compiled) == 1, compiled


def test_a_finished_run_prints_its_table_again(finished, command, tiny):
    workdir, out, _ = finished
    code, again, _ = command("train", *tiny, f"--workdir={workdir}")
    assert code == 0
    assert again.splitlines()[0] == out.splitlines()[0] and "finished" in again


def test_a_finished_run_evaluates_again_when_asked_to(finished, command, tiny):
    workdir, _, _ = finished
    field = "evaluators.retrieval.scenes.synthetic.num_examples"
    code, _, err = command("train", *tiny, f"--workdir={workdir}", f"--config.{field}=20")
    assert code == 0, err
    assert f"config.{field}: 30 -> 20" in err
    lines = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    assert [x["step"] for x in lines if "train/loss" in x] == [2, 4, 6, 8, 10, 12]
    assert sum("eval/noise/auc" in x for x in lines) == 1


def test_a_changed_field_is_refused_with_both_values(finished, command, tiny):
    workdir, _, _ = finished
    code, _, err = command(
        "train", *tiny, f"--workdir={workdir}", "--config.optimizer.learning_rate=0.5"
    )
    assert code == 2
    assert "learning_rate=0.001" in err and "0.5" in err and "--workdir" in err


def test_runtime_fields_may_change_and_are_named(command, tiny, tmp_path, monkeypatch):
    """A run that is stopped half-way goes on with another cadence, and ends."""
    monkeypatch.setattr(loop.stop, "requested", lambda step=None: step == 6)
    code, _, err = command("train", *tiny, f"--workdir={tmp_path / 'w'}")
    assert code == 75 and "step 6 of 12" in err
    monkeypatch.undo()
    monkeypatch.chdir(tmp_path.parent)  # undo gave back the folder as well
    code, _, err = command(
        "train", *absolute(tiny), f"--workdir={tmp_path / 'w'}", "--config.log.every=3 steps"
    )
    assert code == 0
    assert "config.log.every: '2 steps' -> '3 steps'" in err and "going on from step 6" in err


def absolute(arguments):
    from pathlib import Path

    root = Path(__file__).resolve().parents[2]
    return (f"--config={root / 'configs' / 'quickstart.py'}", *arguments[1:])


def test_method_clip_runs_the_same_steps(command, tiny, tmp_path):
    first = "--config=configs/quickstart.py:method=clip"
    code, out, err = command("train", first, *tiny[1:], f"--workdir={tmp_path / 'w'}")
    assert code == 0, err
    assert "noise" not in out and "zero_shot" in out


def test_token_wise_similarity_runs(command, tiny, tmp_path):
    code, out, err = command(
        "train",
        *tiny,
        f"--workdir={tmp_path / 'w'}",
        "--config.loss.similarity=token_max",
        "--config.nlip.form=mixture_likelihood",
        "--config.nlip.reestimate_every=2 steps",
        "--config.evaluators.zero_shot.scenes.ensemble=similarities",
    )
    assert code == 0, err
    assert "auc" in out
    versions = sorted(p.parent.name for p in (tmp_path / "w" / "columns").glob("*/*/DONE"))
    assert versions == ["0001", "0001", "0002", "0002"]  # after steps 8 and 10


def test_stop_is_asked_once():
    assert not stop.requested()
