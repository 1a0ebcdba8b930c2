"""`evaluate`: checkpoints of a run give again what the run itself found, and nothing is touched."""

import json
import re
import shutil
import threading
import time

import numpy as np
import pytest

from nlip_jax import config as configs
from nlip_jax.commands.evaluation import evaluate, steps
from nlip_jax.commands.evaluation.outcome_file import read_outcomes
from nlip_jax.commands.workdir import lock
from nlip_jax.train import stop
from nlip_jax.train.metrics import read_metrics

KINDS = ("zero_shot/", "retrieval/")
OTHER_SETS = "--config.evaluators.retrieval.scenes.synthetic.num_examples=20"


@pytest.fixture(scope="module")
def shared_runs():
    return {}


@pytest.fixture
def finished(shared_runs, command, tiny, tmp_path_factory):
    """A finished run that evaluated on its way, too, made once."""
    if not shared_runs:
        workdir = tmp_path_factory.mktemp("runs") / "tiny"
        code, _, err = command(
            "train",
            *tiny,
            f"--workdir={workdir}",
            "--config.checkpoint.keep=3",
            "--config.evaluation.every=50 %",
            "--config.ema.decay=0.9",
            "--config.evaluation.bootstrap=50",
        )
        assert code == 0, err
        shared_runs["run"] = workdir
    return shared_runs["run"]


def contents(workdir) -> dict[str, tuple]:
    files = (path for path in workdir.rglob("*") if path.is_file())
    return {str(p.relative_to(workdir)): (p.stat().st_mtime_ns, p.read_bytes()) for p in files}


def read(path) -> dict:
    return json.loads(path.read_text())


def of_kinds(results: dict) -> dict:
    return {name: value for name, value in results.items() if name.startswith(KINDS)}


def evaluated(folder) -> list[int]:
    return [line["step"] for line in read_metrics(folder / "metrics.jsonl")]


def test_what_a_run_leaves_of_its_evaluations(finished):
    results = read(finished / "results.json")
    for name in ("zero_shot/scenes/top1", "retrieval/scenes/text_to_image/recall@5"):
        assert results[f"{name}_low"] <= results[name] <= results[f"{name}_high"]
    assert not [name for name in results if "median_rank_" in name or "step_" in name]
    lines = [x for x in read_metrics(finished / "metrics.jsonl") if "train/loss" not in x]
    assert [x["step"] for x in lines] == [6, 12]
    assert "eval/zero_shot/scenes/top1" in lines[0]
    assert not [name for line in lines for name in line if name.endswith(("_low", "_high"))]

    samples, sets = read_outcomes(finished)
    assert set(sets) == {"zero_shot/scenes", "retrieval/scenes"}
    assert samples["zero_shot/scenes/top1"].values.mean() == results["zero_shot/scenes/top1"]
    name = "retrieval/scenes/text_to_image/recall@1"
    assert samples[name].values.mean() == results[name] and len(samples[name].groups) == 30
    page = (finished / "evaluation.html").read_text()
    assert "scenes" in page and "http-equiv" in page


def test_a_checkpoint_gives_bit_for_bit_the_results_of_the_run(finished, command, tmp_path):
    """From its folder alone, which stays as it is, while another process works there."""
    before = contents(finished)
    output = tmp_path / "out"
    with lock(finished):
        code, out, err = command(
            "evaluate",
            f"--workdir={finished}",
            f"--output={output}",
            f"--json={tmp_path / 'numbers.json'}",
        )
    assert code == 0, err
    after = contents(finished)
    assert all(after[name] == before[name] for name in before.keys() - {".lock"})
    assert after.keys() - before.keys() <= {".lock"}

    results = read(output / "results.json")
    assert of_kinds(results) == of_kinds(read(finished / "results.json"))
    assert results["step"] == 12 and read(tmp_path / "numbers.json") == results
    ours, theirs = read_outcomes(output), read_outcomes(finished)
    assert ours[1] == theirs[1] and ours[0].keys() == theirs[0].keys()
    for name, samples in theirs[0].items():
        np.testing.assert_array_equal(ours[0][name].values, samples.values)
    assert list((output / "tensorboard").iterdir())
    assert "step 12: zero_shot/scenes" in err and "recall@1" in out
    assert str(output / "evaluation.html") in out and (output / "evaluation.html").exists()

    # Nothing is left to do, and nothing is done.
    before = contents(output)
    code, out, err = command("evaluate", f"--workdir={finished}", f"--output={output}")
    assert code == 0 and "recall@1" in out and "step 12" not in err
    assert contents(output)["results.json"] == before["results.json"]


def test_the_default_place_and_all_steps(finished, command, tmp_path):
    """What was evaluated is not evaluated again, and lines stand in the order of steps."""
    workdir = shutil.copytree(finished, tmp_path / "run")
    code, _, err = command("evaluate", f"--workdir={workdir}", "--step=8")
    assert code == 0, err
    output = workdir / "evaluate"
    assert evaluated(output) == [8] and read(output / "results.json")["step"] == 8
    code, _, err = command("evaluate", f"--workdir={workdir}", "--step=all")
    assert code == 0, err
    assert "step 6:" in err and "step 12:" in err and "step 8:" not in err
    assert evaluated(output) == [6, 8, 12] and read(output / "results.json")["step"] == 12
    lines = read_metrics(workdir / "metrics.jsonl")
    of_run = {line["step"]: line for line in lines if "train/loss" not in line}
    for line in read_metrics(output / "metrics.jsonl"):
        expected = of_run.get(line["step"], line)
        names = [name for name in line if name.startswith(tuple(f"eval/{k}" for k in KINDS))]
        assert names and all(line[name] == expected[name] for name in names)


def test_the_step_that_was_asked_for_is_shown(finished, command, tmp_path):
    """Also where a newer one was evaluated before."""
    common = ("evaluate", f"--workdir={finished}", f"--output={tmp_path / 'out'}")
    common = (*common, "--config.report.enabled=False")
    numbers = tmp_path / "numbers.json"
    for step in ("12", "6", "6"):  # the last time, nothing is left to do
        code, out, err = command(*common, f"--step={step}", f"--json={numbers}")
        assert code == 0, err
        assert re.search(rf"step +{step}\n", out) and read(numbers)["step"] == int(step)
    assert "metrics.jsonl; its other files are of step 12" in out
    line = read_metrics(tmp_path / "out" / "metrics.jsonl")[0]
    assert line == {"step": 6} | {f"eval/{n}": v for n, v in read(numbers).items() if n != "step"}
    assert read(tmp_path / "out" / "results.json")["step"] == 12
    assert read_outcomes(tmp_path / "out", step=12)


def test_what_a_kill_left_is_gone(finished, command, tmp_path):
    """Files that were about to be written, and events of a step that was not done."""
    output = tmp_path / "out"
    arguments = ("evaluate", f"--workdir={finished}", f"--output={output}")
    assert command(*arguments)[0] == 0
    events = list((output / "tensorboard").iterdir())
    (output / "metrics.jsonl").rename(output / "metrics.jsonl.123.tmp")
    events[0].rename(events[0].with_name("events.out.tfevents.1.before.12"))
    code, _, err = command(*arguments)
    assert code == 0 and "step 12" in err
    assert not list(output.glob("*.tmp")) and evaluated(output) == [12]
    (left,) = (output / "tensorboard").iterdir()
    assert left.name.endswith(".12") and "before" not in left.name


def test_neither_training_data_nor_the_optimizer_is_needed(finished, command, tmp_path):
    """On another mesh; with the average or without it."""
    workdir = shutil.copytree(finished, tmp_path / "run")
    config = read(workdir / "config.json")
    config["data"] |= {"source": "tar"}
    config["data"]["tar"]["shards"] = "/nowhere/*.tar"
    (workdir / "config.json").write_text(json.dumps(config))
    shutil.rmtree(workdir / "columns")
    common = ("evaluate", f"--workdir={workdir}", "--config.report.enabled=False")
    sharded = ("--config.mesh.fsdp=4", "--config.mesh.fsdp_min_bytes=0")
    code, _, err = command(*common, *sharded, "--config.mesh.max_replicated=1.0")
    assert code == 0, err
    results = read(finished / "results.json")
    ours = read(workdir / "evaluate" / "results.json")
    for name in ("zero_shot/scenes/top1", "retrieval/scenes/mean_recall"):
        assert ours[name] == pytest.approx(results[name], abs=1e-6)
    code, _, err = command(*common, "--config.ema.evaluate=False", f"--output={tmp_path / 'raw'}")
    assert code == 0, err
    samples = [read_outcomes(f)[0] for f in (workdir / "evaluate", tmp_path / "raw")]
    assert samples[0].keys() == samples[1].keys()


def test_other_sets_need_another_place(finished, command, tmp_path):
    output = f"--output={tmp_path / 'out'}"
    code, _, err = command("evaluate", f"--workdir={finished}", output)
    assert code == 0, err
    code, _, err = command("evaluate", f"--workdir={finished}", output, OTHER_SETS)
    assert code == 2 and len(err.splitlines()) == 1
    assert "num_examples=30, now it is 20" in err and "--output" in err
    code, _, err = command(
        "evaluate", f"--workdir={finished}", f"--output={tmp_path / 'other'}", OTHER_SETS
    )
    assert code == 0, err
    (tmp_path / "fewer.py").write_text(
        "from configs import quickstart\n"
        "def get_config():\n"
        "    c = quickstart.get_config()\n"
        "    del c.evaluators.retrieval\n"
        "    return c\n"
    )
    config = f"--config={tmp_path / 'fewer.py'}"
    code, _, err = command("evaluate", f"--workdir={finished}", output, config)
    assert code == 2 and len(err.splitlines()) == 1
    assert "an evaluation on retrieval/scenes, zero_shot/scenes, asked for is one on zero" in err
    samples, sets = read_outcomes(tmp_path / "other")
    assert len(samples["retrieval/scenes/image_to_text/recall@1"].values) == 20
    assert sets["zero_shot/scenes"] == read_outcomes(finished)[1]["zero_shot/scenes"]
    assert sets["retrieval/scenes"] != read_outcomes(finished)[1]["retrieval/scenes"]


def test_sets_of_another_config(finished, command, tmp_path):
    code, _, err = command(
        "evaluate",
        f"--workdir={finished}",
        "--config=configs/quickstart.py",
        "--config.evaluators.retrieval.scenes.synthetic.num_examples=16",
        "--config.evaluators.zero_shot.scenes.class_scenes.images_per_class=1",
        "--config.evaluation.bootstrap=0",
        f"--output={tmp_path / 'out'}",
    )
    assert code == 0, err
    results, of_run = (read(f / "results.json") for f in (tmp_path / "out", finished))
    assert results["zero_shot/scenes/top1"] == of_run["zero_shot/scenes/top1"]
    assert not [name for name in results if name.endswith("_low")]
    # All else is the run's.
    config, of_run = (read(f / "config.json") for f in (tmp_path / "out", finished))
    assert config["model"] == of_run["model"]


def test_a_stopped_evaluation_goes_on(finished, command, tmp_path, monkeypatch):
    output = tmp_path / "out"
    arguments = ("evaluate", f"--workdir={finished}", "--step=all", f"--output={output}")
    written = []
    original = evaluate.Output.write

    def write(self, step, found, **details):
        original(self, step, found, **details)
        written.append(step)

    monkeypatch.setattr(evaluate.Output, "write", write)
    monkeypatch.setattr(stop, "requested", lambda step=None: written == [6])
    code, _, err = command(*arguments)
    assert code == 75 and "run the same command again" in err
    assert evaluated(output) == [6] and not list(output.glob("*.tmp"))
    monkeypatch.setattr(stop, "requested", lambda step=None: False)
    code, _, err = command(*arguments)
    assert code == 0, err
    assert written == [6, 8, 12] and evaluated(output) == written


def test_broken_parameters_are_one_line(command, tiny, tmp_path):
    """Whether the run itself comes upon them at its end, or someone evaluates its checkpoint."""
    workdir = tmp_path / "w"
    arguments = (
        *tiny,
        f"--workdir={workdir}",
        "--config.method=clip",
        "--config.optimizer.learning_rate=1e30",
        "--config.optimizer.clip_norm=0.0",
        "--config.schedule.warmup=0 steps",
        "--config.total=4 steps",
        "--config.spikes.action=skip",
        "--config.report.enabled=False",
    )
    code, _, err = command("train", *arguments)
    assert code == 1
    assert "have features that are not finite" in err.splitlines()[-1]
    assert not (workdir / "results.json").exists() and not (workdir / "outcomes.npz").exists()
    code, _, err = command("evaluate", f"--workdir={workdir}")
    assert code == 1
    assert re.search(r"step 4: \d+ of \d+ \w+ have features that are not finite", err), err
    assert evaluated(workdir / "evaluate") == []


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--workdir="], "--workdir=FOLDER of a run, or --model"),
        (["--workdir={parent}"], "is no folder of a run: it has no config.json"),
        (["--step=7"], "--step=7: there is no such checkpoint; choose one of 6, 8, 12"),
        (["--step=newest"], "--step=newest: choose latest, all or the number"),
        (["--watch", "--step=8"], "leave --step out"),
        (["--watch=0"], "--watch=0: must be more than 0 seconds"),
        (["--timeout=5"], "--timeout=5 bounds --watch"),
        (["--tolerance=0.1"], "--tolerance=0.1 belongs to --compare"),
        (["--model=a:b"], "--model and --workdir do not go together"),
        (["--output={workdir}"], "is the folder of a run"),
        (["--output={parent}"], "not empty and not of an evaluation"),
        (["--output={workdir}/config.json"], "is a file; name a folder"),
        (["--json={parent}/none/x.json"], "--json=.*no such folder"),
        (["--config.optimizer.learning_rate=0.1"], "the run was trained with 0.001"),
        (["--config.evaluaters.x=1"], "no such config field"),
        (["--config=configs/none.py"], "no config file"),
        (["--config.mesh.fsdp=3"], "does not make the 8 devices"),
        (["--config.evaluation.bootstrap=-1"], "evaluation.bootstrap=-1"),
        (["--stop=7"], "Unknown command line flag 'stop'"),
        (["again"], "unexpected argument 'again'"),
    ],
)
def test_wrong_input(finished, command, arguments, words):
    places = {"parent": finished.parent, "workdir": finished}
    given = [argument.format(**places) for argument in arguments]
    named = {argument.partition("=")[0] for argument in given}
    workdir = [] if "--workdir" in named else [f"--workdir={finished}"]
    code, _, err = command("evaluate", *workdir, *given)
    assert code == 2 and len(err.splitlines()) == 1, err
    assert re.search(words, err), err


@pytest.mark.parametrize("name", ["config.json", "data.json"])
def test_a_damaged_file_of_the_run(finished, command, tmp_path, name):
    workdir = shutil.copytree(finished, tmp_path / "run")
    (workdir / name).write_text('{"half": ')
    code, _, err = command("evaluate", f"--workdir={workdir}")
    assert code == 2 and len(err.splitlines()) == 1 and f"{name} is damaged" in err


def test_a_run_that_lost_its_vocabulary(finished, command, tmp_path):
    workdir = shutil.copytree(finished, tmp_path / "run")
    (workdir / "tokenizer.model").unlink()
    code, _, err = command("evaluate", f"--workdir={workdir}")
    assert code == 2 and "tokenizer.model, this run's own vocabulary, is gone" in err
    (workdir / "data.json").write_text(
        json.dumps(read(finished / "data.json") | {"vocab_size": 999})
    )
    shutil.copy(finished / "tokenizer.model", workdir)
    code, _, err = command("evaluate", f"--workdir={workdir}")
    assert code == 2 and "trained with 999" in err


# --- watching -----------------------------------------------------------------------------------


def test_watching_a_finished_run_ends(finished, command, tmp_path):
    output = tmp_path / "out"
    code, _, err = command(
        "evaluate", f"--workdir={finished}", f"--output={output}", "--watch=0.05"
    )
    assert code == 0, err
    assert evaluated(output) == [6, 8, 12]


def test_watching_a_run_that_begins_goes_on_and_ends(finished, command, tmp_path):
    """Its files appear one after the other; one checkpoint vanishes while it is read."""
    workdir, output = tmp_path / "run", tmp_path / "out"
    (workdir / "checkpoints").mkdir(parents=True)

    def take(name):
        copy = shutil.copytree if (finished / name).is_dir() else shutil.copy
        copy(finished / name, tmp_path / "half")
        (tmp_path / "half").rename(workdir / name)  # as Orbax and write_atomically do

    def run():
        for name in ("data.json", "tokenizer.model", "config.json"):
            time.sleep(0.1)
            take(name)
        (workdir / "checkpoints" / "7").mkdir()  # emptied by the run, and soon gone
        for step in (6, 12):
            take(f"checkpoints/{step}")
            deadline = time.monotonic() + 60
            while step not in evaluated(output) and time.monotonic() < deadline:
                time.sleep(0.05)
            shutil.rmtree(workdir / "checkpoints" / "7", ignore_errors=True)
        take("results.json")

    gone = []
    original = steps.Steps.is_gone

    def is_gone(self, step):  # the run is done with removing it once the restore has failed
        shutil.rmtree(workdir / "checkpoints" / "7", ignore_errors=True)
        gone.append(step)
        return original(self, step)

    thread = threading.Thread(target=run)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(steps.Steps, "is_gone", is_gone)
        thread.start()
        code, _, err = command(
            "evaluate",
            f"--workdir={workdir}",
            f"--output={output}",
            "--watch=0.05",
            "--config.report.enabled=False",
        )
        thread.join()
    assert code == 0, err
    assert "waiting for a run to begin" in err
    assert evaluated(output) == [6, 12] and gone == [7]
    assert "step 7: the run has removed this checkpoint meanwhile" in err
    assert of_kinds(read(output / "results.json")) == of_kinds(read(finished / "results.json"))


def test_watching_gives_up_after_the_timeout(finished, command, tmp_path):
    workdir = shutil.copytree(finished, tmp_path / "run")
    (workdir / "results.json").unlink()
    shutil.rmtree(workdir / "checkpoints")
    code, _, err = command("evaluate", f"--workdir={workdir}", "--watch=0.05", "--timeout=0.2")
    assert code == 1 and "no new checkpoint in" in err
    code, _, err = command(
        "evaluate", f"--workdir={tmp_path / 'none'}", "--watch=0.05", "--timeout=0.2"
    )
    assert code == 1 and "no run has begun" in err


def test_a_prolonged_run_is_not_finished(finished, tmp_path):
    shutil.copytree(finished, tmp_path / "run", ignore=shutil.ignore_patterns("checkpoints"))
    (tmp_path / "run" / "checkpoints" / "12").mkdir(parents=True)
    chosen = steps.Steps(run=tmp_path / "run", chosen="watch")
    assert chosen.next([]) == 12 and chosen.next([12]) == steps.END
    config = configs.from_json((finished / "config.json").read_text())
    config.total = "20 steps"
    (tmp_path / "run" / "config.json").write_text(configs.to_json(config))
    assert chosen.next([12]) == steps.WAIT


def test_the_latest_step_is_chosen_again_if_it_vanishes(tmp_path):
    checkpoints = tmp_path / "checkpoints"
    for step in (4, 8):
        (checkpoints / str(step)).mkdir(parents=True)
    chosen = steps.Steps(run=tmp_path, chosen="latest", patience=0.05)
    assert chosen.next([]) == 8 and not chosen.is_gone(8)
    (checkpoints / "8").rmdir()
    (checkpoints / "12").mkdir()
    assert chosen.is_gone(8) and chosen.next([]) == 12
    (checkpoints / "16").mkdir()
    assert chosen.next([12]) == steps.END  # one, not all that come
