"""`audit` from beginning to end: with a run, with a model of its own, stopped and gone on with."""

import json
import math
import re

import numpy as np
import pyarrow.parquet as pq
import pytest
from ml_collections import ConfigDict

from nlip_jax.commands.auditing import audit as audits
from nlip_jax.commands.auditing import budget, looking, model, training
from nlip_jax.errors import Preempted, RunError
from nlip_jax.report import audit_page
from nlip_jax.train import stop
from nlip_jax.train.map_examples import Mapper

COUNT = 300  # pairs
DATA = (
    "--config=configs/quickstart.py",
    f"--config.data.synthetic.num_examples={COUNT}",
    "--config.data.image_size=16",
    "--config.tokenizer.vocab_size=300",
    "--config.concepts.top_k=2",
    "--config.data.cache=none",
)


@pytest.fixture(autouse=True)
def nobody_asked_to_stop(monkeypatch):
    monkeypatch.setattr(stop, "_requested", False)


@pytest.fixture(autouse=True)
def several_batches(monkeypatch):
    monkeypatch.setattr(model, "_PAIRS", 128)


@pytest.fixture(autouse=True)
def blank_page(monkeypatch):
    monkeypatch.setattr(
        audit_page, "render", lambda report: "\n".join([report.title, *report.notes])
    )


@pytest.fixture(scope="module")
def shared_runs():
    return {}


@pytest.fixture
def run(shared_runs, command, tiny, tmp_path_factory):
    """A finished run on some of the data, made once."""
    if not shared_runs:
        workdir = tmp_path_factory.mktemp("runs") / "tiny"
        code, _, err = command(
            "train",
            *tiny,
            f"--workdir={workdir}",
            "--config.total=6 steps",
            "--config.method=clip",
            "--config.report.enabled=False",
        )
        assert code == 0, err
        shared_runs["run"] = workdir
    return shared_runs["run"]


@pytest.fixture
def small(monkeypatch):
    """A model of its own takes seconds."""
    monkeypatch.setattr(training, "LEAST_STEPS", 4)
    monkeypatch.setattr(training, "EPOCHS", 0.01)
    monkeypatch.setattr(
        training,
        "_SMALL",
        training._SMALL
        | {
            **{f"model.{part}.width": 8 for part in ("image", "text")},
            "model.embed_dim": 8,
            "model.image.depth": 1,
            "captions.max_length": 4,
        },
    )


def kept_files(folder) -> dict[str, bytes]:
    patterns = ("*.parquet", "kept_*", "columns/*/*/*")
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for pattern in patterns
        for path in folder.glob(pattern)
    }


def test_a_run_judges_other_data_and_its_own(run, command, tmp_path, monkeypatch):
    passes, stream = [], Mapper.stream

    def counted(self, function, params, **options):
        passes.append(type(function))
        return stream(self, function, params, **options)

    monkeypatch.setattr(Mapper, "stream", counted)
    audit = ("audit", f"--run={run}", *DATA, f"--workdir={tmp_path / 'a'}")
    before = {path: path.stat().st_mtime_ns for path in run.rglob("*")}
    code, out, err = command(*audit, f"--json={tmp_path / 'a.json'}")
    assert code == 0, err
    assert f"the page of this audit is {tmp_path / 'a' / 'audit.html'}" in out
    results = json.loads((tmp_path / "a.json").read_text())
    assert results["audit/pairs"] == results["audit/looked_at"] == COUNT
    assert results["audit/unfinished_stages"] == 0 and "noise/auc" in results
    table = pq.read_table(tmp_path / "a" / "pairs.parquet")
    assert table["missing_concepts"].null_count == 0
    assert table["proposed_caption"].null_count == COUNT
    concepts = set((tmp_path / "a" / "concepts.txt").read_text().splitlines())
    lacking = {concept for row in table["missing_concepts"].to_pylist() for concept in row}
    assert lacking and lacking <= concepts
    assert before == {path: path.stat().st_mtime_ns for path in run.rglob("*")}

    code, again, err = command(*audit)  # everything is there
    assert code == 0 and "looking" not in err, err
    assert passes == [looking.Look]  # features are computed once for losses and concepts
    untimed = re.compile(r"^  .*_seconds.*\n|^the page.*\n", re.MULTILINE)
    assert untimed.sub("", again) == untimed.sub("", out)

    code, out, err = command("audit", f"--run={run}", f"--workdir={tmp_path / 'own'}", "--step=6")
    assert code == 0, err
    assert re.search(r"pairs +100\n", out)


def test_stopped_in_the_pass_it_goes_on(run, command, tmp_path, monkeypatch):
    audit = ("audit", f"--run={run}", *DATA)
    code, _, err = command(*audit, f"--workdir={tmp_path / 'once'}")
    assert code == 0, err

    looked_at = []

    def on_rows(self, rows, **options):
        looked_at.extend(rows.due[rows.valid].tolist())
        if len(looked_at) == 128:
            stop._requested = True

    with monkeypatch.context() as patch:
        patch.setattr(audits.Quarantine, "add", on_rows)
        code, out, err = command(*audit, f"--workdir={tmp_path / 'twice'}")
        assert code == 75 and "run the same command again" in err and not out
        assert not (tmp_path / "twice" / "pairs.parquet").exists()
        stop._requested = False
        code, out, err = command(*audit, f"--workdir={tmp_path / 'twice'}")
        assert code == 0, err
    assert sorted(looked_at) == list(range(COUNT))  # none of them twice
    assert kept_files(tmp_path / "twice") == kept_files(tmp_path / "once")


def test_what_there_was_no_time_for_is_told_and_done_the_next_time(
    run, command, tmp_path, monkeypatch
):
    audit = ("audit", f"--run={run}", *DATA, f"--workdir={tmp_path / 'a'}")
    with monkeypatch.context() as patch:
        patch.setattr(audits, "is_over", lambda moment: True)  # after the first batch
        code, _, err = command(*audit)
    assert code == 0, err
    page = (tmp_path / "a" / "audit.html").read_text()
    assert "Not finished within 10 min 00 s: look at pairs: 128 of 300 pairs (42.7 %)" in page
    results = json.loads((tmp_path / "a" / "results.json").read_text())
    assert results["audit/looked_at"] == 128 and results["audit/unfinished_stages"] == 1
    table = pq.read_table(tmp_path / "a" / "pairs.parquet")
    assert table["noise_prob"].null_count == COUNT - 128
    assert table["missing_concepts"].null_count == COUNT - 128

    code, _, err = command(*audit)
    assert code == 0, err
    assert "Not finished" not in (tmp_path / "a" / "audit.html").read_text()
    command(*audit[:-1], f"--workdir={tmp_path / 'once'}")
    once, twice = (kept_files(tmp_path / name) for name in ("once", "a"))
    for name in ("pairs.parquet", "columns/pair_loss/0001/part-00000-of-00001.npy"):
        assert once[name] == twice[name]


def test_without_a_run_a_small_model_is_trained(small, command, tmp_path, monkeypatch):
    audit = ("audit", *DATA, f"--workdir={tmp_path / 'a'}")
    requested = stop.requested
    with monkeypatch.context() as patch:
        patch.setattr(stop, "requested", lambda step=None: step == 2 or requested(step))
        code, _, err = command(*audit)
    assert code == 75 and "stopped as asked at step 2" in err
    assert not (tmp_path / "a" / "model" / "TRAINED").exists()

    code, _, err = command(*audit)
    assert code == 0 and "going on from step 2" in err, err
    assert (tmp_path / "a" / "model" / "TRAINED").read_text() == "4"
    assert not (tmp_path / "a" / "model" / "results.json").exists()
    page = (tmp_path / "a" / "audit.html").read_text()
    assert "The model hardly tells images and texts apart" in page and "--run" in page
    table = pq.read_table(tmp_path / "a" / "pairs.parquet")
    noisy = table["noise_prob"].to_numpy() >= 0.5
    proposed = np.array([text is not None for text in table["proposed_caption"].to_pylist()])
    assert (proposed <= noisy).all() and proposed.any()

    first = kept_files(tmp_path / "a")
    code, _, err = command(*audit)  # everything is there
    assert code == 0 and "captioning" not in err and "looking" not in err, err
    assert kept_files(tmp_path / "a") == first


def test_no_time_to_train(tmp_path, monkeypatch):
    def run_in(folder, config, **options):
        stop.check()  # as the loop does at its first step

    config = ConfigDict({"batch_size": 8})
    monkeypatch.setattr(training.train_command, "run_in", run_in)
    monkeypatch.setattr(training.workdirs, "check_config", lambda *args, **options: {})
    with pytest.raises(RunError, match="the time was over before a model could be trained"):
        training.train_small(config, tmp_path / "model", steps=5, ends=lambda seconds: 0.0)
    monkeypatch.setattr(stop, "_requested", True)
    with pytest.raises(Preempted):
        training.train_small(config, tmp_path / "model", steps=5, ends=lambda seconds: math.inf)


@pytest.mark.parametrize(
    "flags, message",
    [
        (("--minutes=soon", *DATA), "--minutes=soon: must be a number, such as 10"),
        (("--minutes=0", *DATA), "--minutes=0: must be at least 0.1"),
        (("--keep_below=2", *DATA), "--keep_below=2: must be at least 0 and at most 1.01"),
        (("--near=0.1", *DATA), "--near=0.1: must be at least 0.3"),
        (("--step=4", *DATA), "--step=4: only a --run has checkpoints"),
        ((), "there is nothing to audit: give --config=FILE"),
        (("--run=nowhere",), "--run=nowhere is no folder of a run"),
        ((*DATA, "--nosuch=1"), "Unknown command line flag 'nosuch'"),
        ((*DATA, "--config.data.nosuch=1"), "no such config field: config.data.nosuch"),
        (("--config=configs/flickr8k.py:nowhere",), "nowhere"),
    ],
    ids=lambda value: None if isinstance(value, tuple) else value[:20].replace(" ", "_"),
)
def test_wrong_input_is_refused(command, tmp_path, flags, message):
    code, out, err = command("audit", *flags, f"--workdir={tmp_path / 'a'}")
    assert code == 2 and not out
    assert message in err and len(err.strip().splitlines()) == 1


def test_folders_of_others_are_refused(run, command, tmp_path):
    audit = ("audit", f"--run={run}", *DATA)
    (tmp_path / "others").mkdir()
    (tmp_path / "others" / "thesis.tex").write_text("...")
    code, _, err = command(*audit, f"--workdir={tmp_path / 'others'}")
    assert code == 2 and "not of an audit (it holds thesis.tex)" in err
    assert [path.name for path in (tmp_path / "others").iterdir()] == ["thesis.tex"]
    code, _, err = command(*audit, f"--workdir={run}")
    assert code == 2 and "is the folder of the run, which is only read" in err
    code, _, err = command(*audit, f"--workdir={tmp_path / 'a'}")
    assert code == 0, err
    other = "--config.data.synthetic.seed=5"
    code, _, err = command(*audit, other, f"--workdir={tmp_path / 'a'}")
    assert code == 2 and "holds an audit with data" in err and "choose another --workdir" in err
    code, _, err = command(*audit, "--config.concepts.top_k=3", f"--workdir={tmp_path / 'a'}")
    assert code == 2 and "holds an audit with concepts '2 of mined by rules" in err
    code, _, err = command("audit", f"--run={run}", "--config.nlip.weight=0.1")
    assert code == 2 and "the run was trained with" in err


def test_the_budget_leaves_time_for_what_comes_after(monkeypatch):
    now = [1000.0]
    monkeypatch.setattr(budget.time, "monotonic", lambda: now[0])
    shared = budget.Budget(begun=1000.0, seconds=600.0)
    assert not shared.reading_ends(1_000_000)
    assert shared.reading_ends(9_000_000)  # what comes after would take too long
    ends = shared.pass_ends(num_listed=1_000_000, proposes=True)
    assert ends == pytest.approx(1000 + 600 - 25 - 15 - 90)
    assert shared.proposing_ends(num_listed=1_000_000) == pytest.approx(1000 + 600 - 25 - 15)
    now[0] = 1590.0  # too late: there is a little time all the same
    assert shared.pass_ends(num_listed=1_000_000, proposes=True) == pytest.approx(1590 + 60)


def test_training_has_the_time_that_the_rest_does_not_need(monkeypatch):
    now = [1000.0]
    monkeypatch.setattr(budget.time, "monotonic", lambda: now[0])
    shared = budget.Budget(begun=1000.0, seconds=600.0)

    def ends(**values) -> float:
        known = {"num_listed": 1000, "num_pairs": 10_000, "pair_seconds": 0.01}
        return shared.training_ends(**known | values) - 1000

    assert ends(pair_seconds=math.inf) == ends(num_pairs=10**8) == pytest.approx(0.55 * 600)
    assert ends() == pytest.approx(600 - 15 - 0.025 - 90 - 50)
    assert ends(num_pairs=100) == pytest.approx(0.75 * 600)
    assert ends(num_listed=20_000_000) == pytest.approx(60)  # there is hardly any time

    clock = training._Clock(
        steps=100, batch_size=10, ends=lambda seconds: 1100 if seconds > 0.05 else 1200
    )
    assert not clock.is_over(None) and not clock.is_over(0)
    now[0] = 1101.0
    assert clock.is_over(None) and clock.is_over(training._MEASURED - 1)
    now[0] = 1000 + training._MEASURED * 10 * 0.04
    assert not clock.is_over(training._MEASURED) and clock.is_over(100)
