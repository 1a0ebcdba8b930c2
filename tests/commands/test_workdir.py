"""The folder of a run: whose it is, also when its start was cut short."""

import json

import pytest
from ml_collections import ConfigDict

from nlip_jax.commands.workdir import (
    check_config,
    check_data,
    check_total,
    find_workdir,
    lock,
    read_json,
)
from nlip_jax.config import to_json
from nlip_jax.errors import UsageError

CONFIG = ConfigDict({"seed": 0, "total": "10 steps", "log": {"every": 2}, "runtime": ("log.*",)})


def changed(**fields) -> ConfigDict:
    config = ConfigDict(CONFIG.to_dict())
    config.update_from_flattened_dict(fields)
    return config


@pytest.mark.parametrize(
    ("argv", "name"),
    [
        (["--config=configs/quickstart.py"], "quickstart"),
        (["--config", "/some/where/exp.py:method=clip"], "exp_method=clip"),
        (["--config=exp.py:data/flickr8k,size=S/16"], "exp_data_flickr8k,size=S_16"),
    ],
)
def test_default_names(argv, name):
    assert str(find_workdir("", argv)) == f"runs/{name}"


def test_given_names(tmp_path):
    argv = ["--config=configs/x.py"]
    assert find_workdir(str(tmp_path), argv) == tmp_path
    assert "~" not in str(find_workdir("~/runs", argv))
    (tmp_path / "file").write_text("x")
    with pytest.raises(UsageError, match="is a file"):
        find_workdir(str(tmp_path / "file"), argv)


# --- whose folder ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "files",
    [
        [],
        ["tokenizer.model", "tokenizer.json", "index/data/x", ".lock"],  # of other commands
        [".lock", "tokenizer.model.123.tmp"],  # killed while the tokenizer was written
        ["data.json", "config.json.123.tmp"],  # killed before the config was there
        ["data.json", "tokenizer.model", "checkpoints/x"],
    ],
)
def test_a_start_that_was_cut_short_may_be_repeated(tmp_path, files):
    for name in files:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    assert check_config(tmp_path, CONFIG, may_grow=False) == {}


def test_a_folder_that_is_not_there_yet(tmp_path):
    assert check_config(tmp_path / "new", CONFIG, may_grow=False) == {}


def test_a_folder_of_something_else(tmp_path):
    (tmp_path / "thesis.tex").touch()
    with pytest.raises(UsageError, match=r"it holds thesis\.tex"):
        check_config(tmp_path, CONFIG, may_grow=False)


# --- what changed ---------------------------------------------------------------------------------


@pytest.fixture
def begun(tmp_path):
    (tmp_path / "config.json").write_text(to_json(CONFIG))
    (tmp_path / "checkpoints" / "4").mkdir(parents=True)
    return tmp_path


def test_fields_that_may_change(begun):
    assert check_config(begun, CONFIG, may_grow=False) == {}
    assert check_config(begun, changed(**{"log.every": 5}), may_grow=False) == {
        "log.every": (2, 5)
    }
    longer = changed(total="20 steps")
    assert check_config(begun, longer, may_grow=True) == {"total": ("10 steps", "20 steps")}


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"seed": 1}, r"config\.seed=0, now it is 1"),
        ({"total": "20 steps"}, r"config\.total='10 steps', now it is '20 steps'"),
    ],
)
def test_fields_that_may_not_change(begun, fields, words):
    with pytest.raises(UsageError, match=words):
        check_config(begun, changed(**fields), may_grow=False)


def test_a_run_is_not_shortened_below_what_it_has_done():
    check_total(CONFIG, total=10, done=10)
    with pytest.raises(UsageError, match="'10 steps' is 10 steps, but this run has done 11"):
        check_total(CONFIG, total=10, done=11)


def test_data_that_changed(tmp_path):
    description = {"fingerprint": "abc", "num_examples": 3}
    check_data(tmp_path, description)
    check_data(tmp_path, description)
    assert read_json(tmp_path / "data.json") == description
    with pytest.raises(UsageError, match="fingerprint was 'abc', now it is 'abd'"):
        check_data(tmp_path, description | {"fingerprint": "abd"})
    assert read_json(tmp_path / "none.json") == {}


# --- one at a time --------------------------------------------------------------------------------


def test_two_runs_do_not_share_a_folder(tmp_path):
    with lock(tmp_path / "run"), pytest.raises(UsageError, match=r"process \d+ is working in"):
        lock(tmp_path / "run").__enter__()
    with lock(tmp_path / "run"):
        pass


def test_a_folder_that_cannot_be_made(tmp_path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(UsageError, match="cannot be written"):
        lock(tmp_path / "file" / "run").__enter__()


def test_the_config_on_disk_is_the_config(begun):
    assert json.loads((begun / "config.json").read_text())["runtime"] == ["log.*"]
