"""The sweep as a command: which runs it trains, what it leaves, how it goes on."""

import json

import pytest

from nlip_jax.__main__ import main
from nlip_jax.commands.sweeping.child import Children
from nlip_jax.config import parse_command_line, to_json

FILE = """\
from ml_collections import ConfigDict

SWEEP = {
    "arms": {"low": "a low one", "mine": "mine", "high": "a high one"},
    "seeds": (0, 1),
    "baseline": "low",
    "ceiling": "high",
    "headlines": {"zero_shot/scenes/top1": "top-1"},
    "others": {"noise/auc": "AUC"},
}


def get_config(arg=None):
    given = dict(part.split("=") for part in arg.split(","))
    return ConfigDict({
        "method": {"low": "clip", "mine": "nlip", "high": "clip"}[given["arm"]],
        "seed": int(given["seed"]),
        "run": given.get("run", ""),
        "total": "40 steps",
        "batch_size": 100,
        "rate": 0.5,
        "log": {"every": "5 steps"},
        "evaluators": {"zero_shot": {"scenes": {"examples": 1}}},
        "runtime": ("log.*", "evaluators.*"),
    })
"""
RESULTS = {"low": 0.2, "mine": 0.5, "high": 0.8}


@pytest.fixture
def sweep(command, tmp_path, monkeypatch):
    """Runs a sweep with a pretended `train`: (code, out, err, names of the runs it started)."""
    (tmp_path / "three.py").write_text(FILE)
    started, codes = [], {}

    def pretend(self, argv, *, log, on_wait):
        assert argv[1:4] == ["-m", "nlip_jax", "train"]
        workdir = log.with_suffix("")
        started.append(f"{log.parent.name}/{workdir.name}")
        workdir.mkdir(parents=True, exist_ok=True)
        last = "For simplicity, JAX has removed its internal frames from the traceback."
        log.write_text(f"training\n{started[-1]}: no luck\n-----------\n{last}\n")
        on_wait()
        if code := codes.get(started[-1], 0):
            self.is_asked_to_stop = code == 75
            return code
        config, _ = parse_command_line(argv[4:], command="train", extra_flags={"workdir": ""})
        (workdir / "config.json").write_text(to_json(config))  # "run" of it is what it builds on
        (workdir / "data.json").write_text('{"fingerprint": "f0", "num_examples": 1000}')
        results = {"zero_shot/scenes/top1": RESULTS[log.parent.name] + 0.01 * config.seed}
        results |= {"noise/auc": 0.99} if config.method == "nlip" else {}
        (workdir / "results.json").write_text(json.dumps(results | {"step": 40}))
        return 0

    monkeypatch.setattr(Children, "run", pretend)

    def run(*argv, **ends):
        started.clear()
        codes.clear()
        codes.update({name.replace("_", "/"): code for name, code in ends.items()})
        file, workdir = tmp_path / "three.py", tmp_path / "w"
        code, out, err = command("sweep", f"--config={file}", f"--workdir={workdir}", *argv)
        return code, out, err, list(started)

    return run


def test_all_arms_are_trained_seed_by_seed_and_compared(sweep, tmp_path):
    code, out, err, started = sweep(f"--json={tmp_path / 'numbers.json'}")
    assert code == 0, err
    assert started == [f"{arm}/{seed}" for seed in (0, 1) for arm in RESULTS]
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in out.splitlines()[:5]]
    assert rows[0] == ["", "seeds", "top-1", "of the gap", "AUC", "time", "in passes"]
    assert rows[2] == ["a low one", "2", "20.5 ± 0.7 %", "", "", "0 s", "0 s"]
    assert rows[3][:5] == ["mine", "2", "50.5 ± 0.7 %", "50 ± 0 %", "0.990 ± 0.000"]
    assert "6 of 6 runs are there" in out and "(arm - low) / (high - low)" in out
    assert "5 of 6: mine, seed 1: top-1 51.0 %; 0 s" in err
    assert (tmp_path / "w" / "sweep.md").read_text() == out
    numbers = json.loads((tmp_path / "w" / "sweep.json").read_text())
    assert numbers == json.loads((tmp_path / "numbers.json").read_text())
    assert numbers["runs/mine/1/zero_shot/scenes/top1"] == 0.51
    assert numbers["runs/mine/1/data"] == "f0"
    assert numbers["arms/mine/zero_shot/scenes/top1_closed_mean"] == pytest.approx(0.5)
    assert numbers["arms/high/zero_shot/scenes/top1_seeds"] == 2
    assert numbers["config"].endswith("three.py")


def test_what_is_finished_is_only_read(sweep, tmp_path):
    sweep("--arms=low")
    (tmp_path / "w" / "sweep.json").unlink()
    code, _, err, started = sweep()
    assert (code, started) == (0, ["mine/0", "high/0", "mine/1", "high/1"]), err
    assert "1 of 6: low, seed 0: finished before" in err
    assert sweep()[3] == [] and (tmp_path / "w" / "sweep.json").exists()


@pytest.mark.parametrize(
    ("setting", "is_read"),
    [
        ("log.every=7 steps", True),
        ("total=30 steps", False),  # for `train` to refuse
        ("total=50 steps", False),
        ("rate=0.1", False),
        ("evaluators.zero_shot.scenes.examples=3", False),  # something is left to measure
    ],
)
def test_finished_is_what_has_nothing_left_to_do(sweep, setting, is_read):
    sweep("--arms=low", "--seeds=0")
    started = sweep("--arms=low", "--seeds=0", f"--config.{setting}")[3]
    assert started == ([] if is_read else ["low/0"])


def test_a_run_builds_on_another_of_its_seed(sweep, tmp_path):
    file = tmp_path / "three.py"
    file.write_text(FILE.replace('"seeds":', '"uses": {"mine": "low"}, "seeds":'))
    code, _, err, _ = sweep("--seeds=1")
    assert code == 0, err
    configs = {
        arm: json.loads((tmp_path / "w" / arm / "1" / "config.json").read_text()) for arm in RESULTS
    }
    used = str(tmp_path / "w" / "low" / "1")
    assert {arm: c["run"] for arm, c in configs.items()} == {"low": "", "mine": used, "high": ""}
    assert sweep("--seeds=1")[3] == []


def test_fields_of_another_version_do_not_undo_a_finished_run(sweep, tmp_path):
    sweep("--arms=low", "--seeds=0")
    path = tmp_path / "w" / "low" / "0" / "config.json"
    config = json.loads(path.read_text())
    del config["rate"]
    path.write_text(json.dumps(config | {"bygone": 1}))
    assert sweep("--arms=low", "--seeds=0")[3] == []


def test_one_that_fails_is_told_and_the_others_go_on(sweep):
    code, out, err, started = sweep("--seeds=0", mine_0=1, high_0=-9)
    assert code == 1 and len(started) == 3
    assert "2 of 3: mine, seed 0: failed with exit code 1: mine/0: no luck (all of it: " in err
    assert "high, seed 0: ended by signal 9" in err
    assert err.splitlines()[-1] == "failed: mine, seed 0; high, seed 0"
    assert "1 of 3 runs are there" in out and "of the gap" not in out.splitlines()[0]
    assert sweep("--seeds=0")[3] == ["mine/0", "high/0"]


def test_stopped_it_ends_with_75_and_goes_on_there(sweep):
    code, out, err, started = sweep(mine_0=75)
    assert (code, started, out) == (75, ["low/0", "mine/0"], "")
    assert err.splitlines()[-1].endswith("run the same command again to go on")
    assert sweep()[3] == ["mine/0", "high/0", "low/1", "mine/1", "high/1"]


def test_the_table_alone(sweep, tmp_path):
    sweep("--seeds=0")
    (tmp_path / "w" / "sweep.md").unlink()
    code, out, err, started = sweep("--table", "--seeds=0,1")
    assert (code, err, started) == (0, "", [])
    assert "3 of 6 runs are there" in out and "| 50.0 %" in out
    assert not (tmp_path / "w" / "sweep.md").exists()


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        ([], ["needs --config=FILE"]),
        (["--config=configs/none.py"], ["configs/none.py"]),
        (["--config=configs/quickstart.py"], ["names no sweep", "configs/scenes.py"]),
        (["--config=configs/scenes.py:arm=clip"], ["--arms=A,B"]),
        (["--config=configs/scenes.py", "--arms=clip,new"], ["'new'", "whole, again, ceiling"]),
        (["--config=configs/scenes.py", "--seeds=0,-1"], ["'-1'", "from 0 on"]),
        (["--config=configs/scenes.py", "--config.seed=3"], ["--seeds"]),
        (["--config=configs/scenes.py", "--config.totl=3"], ["did you mean config.total"]),
        (["--config=configs/scenes.py", "--config.nlip.weight=2"], ["nlip.weight", "[0, 1]"]),
        (["--config=configs/scenes.py", "--arm=clip"], ["arm"]),
        (["--config=configs/scenes.py", "--table=2"], ["takes no value"]),
        (["--config=configs/scenes.py", "--json=/none/a.json"], ["no such folder"]),
    ],
)
def test_wrong_usage_is_refused(command, argv, words):
    code, out, err = command("sweep", *argv)
    assert code == 2 and err.count("\n") == 1 and not out
    assert all(word in err for word in words), err


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ('"seeds": (0, 1)', '"seeds": ()', "'seeds'] is empty"),
        ('"seeds": (0, 1)', '"seeds": (0, "a")', "has 'a'"),
        ('"baseline": "low"', '"baseline": "lo"', "choose one of low, mine, high"),
        ('"ceiling": "high",', "", "lacks 'ceiling'"),
        ('"others"', '"other"', "has no 'other'"),
        ('{"zero_shot/scenes/top1": "top-1"}', '("top1",)', "must be a dict of names"),
        ('"seeds":', '"uses": {"low": "mine"}, "seeds":', "an arm builds on one before it"),
        ('"seeds":', '"uses": {"mine": "lo"}, "seeds":', "'mine': 'lo'"),
    ],
)
def test_a_wrong_sweep_is_refused(sweep, tmp_path, old, new, words):
    (tmp_path / "three.py").write_text(FILE.replace(old, new))
    code, _, err, started = sweep()
    assert code == 2 and err.count("\n") == 1 and words in err and not started, err


def test_the_folder_of_a_run_is_left_alone(sweep, tmp_path):
    (tmp_path / "w").mkdir()
    (tmp_path / "w" / "config.json").write_text("{}")
    code, _, err, _ = sweep()
    assert code == 2 and "is the folder of a run" in err


def test_a_real_run_is_found(command, tiny, tmp_path, monkeypatch):
    def train_here(self, argv, *, log, on_wait):
        return main(argv[3:])

    monkeypatch.setattr(Children, "run", train_here)
    arguments = ("--config=configs/scenes.py", *tiny[1:], f"--workdir={tmp_path}", "--arms=nlip_1")
    code, _, err = command("sweep", *arguments, "--seeds=0")
    assert code == 0, err
    assert "zero-shot top-1 " in err and "image-to-text recall@1 " in err
    numbers = json.loads((tmp_path / "sweep.json").read_text())
    assert 0 < numbers["runs/nlip_1/0/time/pass_seconds"] < numbers["runs/nlip_1/0/time/seconds"]
    assert numbers["runs/nlip_1/0/step"] == 12
    assert {"noise/auc", "noise/auc_incomplete"} <= {
        name.removeprefix("runs/nlip_1/0/") for name in numbers
    }
