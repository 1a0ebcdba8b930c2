"""Configs: durations, the command line, and what may change between the parts of a run."""

import json
import sys

import pytest
from ml_collections import ConfigDict

from configs import base
from nlip_jax.config import (
    Clock,
    changed_fields,
    config_argument,
    flatten,
    from_json,
    is_runtime,
    parse_command_line,
    parse_flags,
    read_config,
    to_json,
)
from nlip_jax.errors import UsageError

CLOCK = Clock(batch_size=10, num_examples=250, total_steps=2000)


@pytest.fixture
def config_file(tmp_path, monkeypatch):
    """Writes a config file; imports of it do not outlive the test."""
    monkeypatch.setattr(sys, "path", [*sys.path])
    folder = tmp_path / "configs"
    folder.mkdir()

    def write(text: str, name: str = "experiment.py") -> str:
        (folder / name).write_text(text)
        return f"--config={folder / name}"

    return write


FIELDS = """
from ml_collections import ConfigDict

def get_config(arg=None):
    c = ConfigDict({"seed": 0, "rate": 0.5, "name": "a", "flip": False, "span": (0.1, 0.9)})
    c.inner = ConfigDict({"depth": 2, "sets": ConfigDict()})
    c.argument = arg or "none"
    return c
"""


def parse(*argv: str):
    return parse_command_line(list(argv), command="train", extra_flags={"workdir": "where"})


# --- durations ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "steps"),
    [
        ("7 steps", 7),
        ("1 step", 1),
        ("1_000steps", 1000),
        ("2 epochs", 50),
        ("0.5 epochs", 12),
        ("1.5 epoch", 38),
        ("1e3 examples", 100),
        ("1 example", 1),  # never rounded down to nothing
        ("0 steps", 0),
        ("0 epochs", 0),
        ("10 %", 200),
        (" 2.5% ", 50),
        ("0 %", 0),
    ],
)
def test_durations(text, steps):
    assert CLOCK.steps(text, field="total") == steps


@pytest.mark.parametrize(
    "text", ["", "7", "steps", "-1 steps", "1.2.3 steps", "1e999 steps", "nan epochs", "7 parsecs"]
)
def test_what_is_no_duration(text):
    with pytest.raises(UsageError, match=r"config\.nlip\.warmup=.* steps, epochs, examples, %"):
        CLOCK.steps(text, field="nlip.warmup")


def test_a_run_is_no_share_of_itself():
    with pytest.raises(UsageError, match="share of its own length"):
        Clock(batch_size=1, num_examples=1).steps("10 %", field="total")


# --- command line ---------------------------------------------------------------------------------


def test_fields_and_flags_are_read_from_the_arguments_given(config_file):
    config, values = parse(
        config_file(FIELDS) + ":fast",
        "--config.rate=3",
        "--config.inner.depth",
        "4",
        "--config.flip",
        "--config.span=(0.2, 0.3)",
        "--workdir=/somewhere",
    )
    assert (config.rate, config.inner.depth, config.flip) == (3.0, 4, True)
    assert config.span == (0.2, 0.3) and config.argument == "fast"
    assert values == {"workdir": "/somewhere"}


def test_two_command_lines_do_not_share_anything(config_file):
    file = config_file(FIELDS)
    first, _ = parse(file, "--config.rate=3")
    second, values = parse(file)
    assert (first.rate, second.rate, values["workdir"]) == (3.0, 0.5, "")


def test_config_and_its_value_may_be_two_arguments(config_file):
    name, _, file = config_file(FIELDS).partition("=")
    assert parse(name, file)[0].argument == "none"
    assert config_argument(["--workdir=x", name, file], command="train") == file


@pytest.fixture
def forgotten_configs():
    """`configs` of this checkout is not imported while the test runs."""

    def take() -> dict:
        ours = [name for name in sys.modules if name.split(".")[0] == "configs"]
        return {name: sys.modules.pop(name) for name in ours}

    modules = take()
    yield
    take()
    sys.modules.update(modules)


def test_a_config_imports_its_neighbours(config_file, forgotten_configs, tmp_path, monkeypatch):
    config_file(FIELDS, "common.py")
    file = config_file("from configs import common\nget_config = common.get_config\n")
    monkeypatch.chdir(tmp_path)
    assert parse(file)[0].seed == 0


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--config.rat=1"], ["config.rat", "config.rate"]),
        (["--config.inner.nothing=1"], ["config.inner.nothing"]),
        (["--config.rate.deeper=1"], ["config.rate.deeper"]),
        (["--noconfig.nothing"], ["config.nothing"]),
        (["--config.inner.depth=two"], ["config.inner.depth", "two"]),
        (["--config.inner.depth=1.5"], ["config.inner.depth", "1.5"]),
        (["--config.flip=perhaps"], ["config.flip", "perhaps"]),
        (["--config.inner=3"], ["config.inner", "3"]),
        (["--config.seed"], ["config.seed"]),
        (["--nothing=1"], ["nothing"]),
        (["--workdir"], ["workdir"]),
        (["stray"], ["'stray'", "--name=value"]),
        (["--", "stray"], ["'stray'"]),
    ],
)
def test_wrong_arguments(config_file, arguments, words):
    with pytest.raises(UsageError) as error:
        parse(config_file(FIELDS), *arguments)
    assert all(word in str(error.value) for word in words), error.value
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("def get_config(:\n", ["invalid syntax", "line 1"]),
        ("import no_such_module\n", ["line 1", "no_such_module"]),
        ("def get_config():\n    return undefined\n", ["line 2", "undefined"]),
        ("import math\ndef get_config():\n    return math.no\n", ["line 3", "math", "'no'"]),
        ("def get_config():\n    raise OSError('no vocabulary')\n", ["no vocabulary"]),
        ("def get_config():\n    pass\n", ["ConfigDict", "NoneType"]),
        ("def get_config():\n    return {}\n", ["ConfigDict", "dict"]),
        ("x = 1\n", ["get_config"]),
        (FIELDS.replace("c.argument", "c.seed"), ["line 7", "int"]),  # a text for a number
    ],
)
def test_config_files_with_mistakes(config_file, text, words):
    with pytest.raises(UsageError) as error:
        parse(config_file(text))
    assert all(word in str(error.value) for word in ["experiment.py", *words]), error.value
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("name", ["none.py", "", "README.md", "configs"])
def test_no_config_file(tmp_path, name):
    with pytest.raises(UsageError, match=r"configs/quickstart\.py"):
        parse(f"--config={tmp_path / name}")


@pytest.mark.parametrize("arguments", [[], ["--config"], ["--config="], ["--workdir=x"]])
def test_no_config_named(arguments):
    with pytest.raises(UsageError, match="train needs --config=FILE"):
        parse(*arguments)


# --- from one part of a run to the next -----------------------------------------------------------


def test_flatten_and_json_agree():
    config = ConfigDict({"a": {"b": (1, 2), "c": {}}, "d": None})
    assert flatten(config) == {"a.b": [1, 2], "a.c": {}, "d": None}
    assert flatten(json.loads(to_json(config))) == flatten(config)


def test_a_config_comes_back_from_json():
    config = ConfigDict({"a": {"b": (1, (2.0, "x")), "c": {}}, "d": None, "e": True})
    again = from_json(to_json(config))
    assert again == config and again.a.b == (1, (2.0, "x")) and isinstance(again.a.c, ConfigDict)


def test_flags_of_a_command_without_a_config():
    known = {"step": "which", "json": "file"}
    assert parse_flags(["--step=3"], command="replay", known=known) == {"step": "3", "json": ""}
    for wrong, words in ((["--stop=3"], "stop"), (["3"], "unexpected argument '3'")):
        with pytest.raises(UsageError, match=words):
            parse_flags(wrong, command="replay", known=known)


def test_changed_fields_name_both_values():
    old = {"seed": 0, "span": [0, 1], "gone": 1, "sets": {}}
    new = ConfigDict({"seed": 1, "span": (0, 1), "sets": {"val": {"size": 3}}})
    assert changed_fields(old, new) == {
        "seed": (0, 1),
        "gone": (1, None),
        "sets": ({}, None),
        "sets.val.size": (None, 3),
    }
    assert changed_fields(old, old) == {}


def test_a_misspelt_field_in_a_config_file(tmp_path):
    file = tmp_path / "own.py"
    file.write_text(
        "from configs import base, evaluators\n"
        "def get_config():\n"
        "    c = base.get_config()\n"
        "    c.evaluators.retrieval.mine = evaluators.retrieval('tar', base.tar_source())\n"
        "    c.data.mixture.part = base.mixture_part('tar', base.tar_source(), weight=1.0)\n"
        "    c.data.flips = True\n"
        "    return c\n"
    )
    with pytest.raises(UsageError) as caught:
        read_config(str(file))
    text = str(caught.value)
    assert "line 6" in text and '"flips"' in text and "configs/base.py" in text
    assert len(text) < 300 and "\n" not in text


def test_runtime_fields():
    patterns = base.RUNTIME
    for name in (
        "mesh.fsdp",
        "data.storage.cache_dir",
        "data.workers",
        "evaluators.zero_shot.scenes.ensemble",
        "evaluators",  # emptied
        "runtime",
    ):
        assert is_runtime(name, patterns), name
    for name in ("seed", "data.source", "data.cached", "data", "total", "meshes", "nlip.weight"):
        assert not is_runtime(name, patterns), name


def test_every_runtime_pattern_means_a_field():
    names = flatten(base.get_config())
    for pattern in base.RUNTIME:
        assert any(is_runtime(name, (pattern,)) for name in names), pattern
