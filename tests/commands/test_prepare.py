import json
import os
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from nlip_jax.commands import prepare_command
from nlip_jax.data.index.index import Index
from nlip_jax.data.storage import Storage
from nlip_jax.train import stop

SCENES = ("--config=configs/quickstart.py", "--config.data.synthetic.num_examples=200")


def contents(path: Path) -> dict[str, bytes]:
    return {p.name: p.read_bytes() for p in path.rglob("*") if p.is_file()}


@pytest.fixture
def arguments(tmp_path):
    return ("prepare", *SCENES, f"--output={tmp_path / 'o'}", f"--workdir={tmp_path / 'w'}")


@pytest.fixture(autouse=True)
def nobody_asked_to_stop(monkeypatch):
    monkeypatch.setattr(stop, "_requested", False)


def test_what_was_written_is_read_back(command, arguments, tmp_path):
    rules = "--rules=align,min_side=20,max_words=12,top_tokens=off"
    code, out, err = command(*arguments, "--workers=0", "--num_shards=3", rules)
    assert code == 0, err
    assert "counting 200/200 images" in err and "writing 200/200 images" in err
    manifest = json.loads((tmp_path / "o" / "manifest.json").read_text())
    assert manifest["plan"]["rules"]["min_side"] == 20
    kept = manifest["images"]["kept"]
    assert 0 < kept < 200 and f"images: {kept} of 200 kept" in out
    assert f"max_words: {manifest['captions']['max_words']}  (texts of at most" in out

    flags = shlex.split(out.splitlines()[-1].removeprefix("read them with "))
    code, out, err = command("index", *SCENES, f"--workdir={tmp_path / 'x'}", *flags)
    assert code == 0, err
    assert len(Index.open(tmp_path / "x" / "index" / "data", storage=Storage()).rows) == kept


def test_again_on_a_finished_folder(command, arguments, tmp_path):
    _, first, _ = command(*arguments, "--workers=0")
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "o").glob("*.array_record")}
    code, second, _ = command(*arguments, "--workers=0")
    assert code == 0 and second == first
    assert before == {path: path.stat().st_mtime_ns for path in before}


def test_a_disk_that_fails(command, arguments, tmp_path, monkeypatch):
    def fail(*args, **options):
        raise OSError(28, "No space left on device", "counts")

    monkeypatch.setattr(prepare_command, "prepare", fail)
    code, _, err = command(*arguments, "--workers=0")
    assert code == 1 and "No space left" in err and "run the same command again" in err


@pytest.mark.parametrize("moment", [1, 3, 6])
def test_stopped_and_run_again(command, arguments, tmp_path, monkeypatch, moment):
    left = iter([False] * moment + [True] * 9)
    with monkeypatch.context() as patch:
        patch.setattr(prepare_command.stop, "requested", lambda: next(left))
        code, out, err = command(*arguments, "--workers=0", "--num_shards=8", "--rules=align")
    assert code == 75 and "run the same command again" in err and not out
    code, out, err = command(*arguments, "--workers=0", "--num_shards=8", "--rules=align")
    assert code == 0, err
    once = (*arguments[:-2], f"--output={tmp_path / 'once'}", arguments[-1])
    command(*once, "--workers=0", "--num_shards=8", "--rules=align")
    assert contents(tmp_path / "o") == contents(tmp_path / "once")


def test_ctrl_c(arguments, request, tmp_path):
    many = "--config.data.synthetic.num_examples=100000"
    process = subprocess.Popen(
        [sys.executable, "-m", "nlip_jax", *arguments, many, "--num_shards=500", "--workers=1"],
        cwd=request.config.rootpath,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    progress = tmp_path / "o" / ".progress"
    while process.poll() is None and not list(progress.glob("shard-*.json")):
        time.sleep(0.01)
    os.killpg(process.pid, signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 75, err
    assert "stopping after the shards" in err and "run the same command again" in err
    assert "Traceback" not in err
    written = {path.name for path in (tmp_path / "o").glob("*.array_record")}
    reported = {json.loads(p.read_text())["file"] for p in progress.glob("shard-*.json")}
    assert written == reported and not list(progress.glob("*.tmp"))


@pytest.mark.parametrize(
    ("extra", "words"),
    [
        (("--output=",), ["--output=FOLDER"]),
        (("--output=gs://b/c",), ["gs://b/c", "local"]),
        (("--rules=allign",), ["allign", "min_side"]),
        (("--num_shards=0",), ["--num_shards=0"]),
        (("--num_shards=201",), ["201", "200 images"]),
        (("--num_shards=2", "--examples_per_shard=5"), ["one of them"]),
        (("--max_side=wide",), ["--max_side=wide"]),
        (("--workers=-1",), ["--workers=-1"]),
        (("--config.data.source=nothing",), ["nothing"]),
    ],
)
def test_wrong_usage(command, arguments, tmp_path, extra, words):
    code, out, err = command(*arguments, *extra)
    assert code == 2 and err.count("\n") == 1 and all(word in err for word in words), err
    assert not out and not (tmp_path / "o").exists()


def test_a_folder_of_others(command, arguments, tmp_path):
    (tmp_path / "o").mkdir()
    (tmp_path / "o" / "thesis.tex").write_text("x")
    code, _, err = command(*arguments)
    assert code == 2 and "thesis.tex" in err
    assert os.listdir(tmp_path / "o") == ["thesis.tex"]


def test_another_plan(command, arguments, tmp_path):
    command(*arguments, "--workers=0", "--num_shards=2")
    before = contents(tmp_path / "o")
    code, _, err = command(*arguments, "--workers=0", "--num_shards=3")
    assert code == 2 and "num_shards is 2, now it is 3" in err
    assert contents(tmp_path / "o") == before
