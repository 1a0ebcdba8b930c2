"""`doctor`: what it says of a sample is true of the data, good or bad."""

import json

import pytest
from tars import encode, pixels, write_tar


@pytest.fixture
def shards(tmp_path) -> str:
    """Images of 24 x 16 pixels, half of them cut off, with captions of 3, 4, 5, ... words."""
    members = {}
    for i in range(40):
        data = encode(pixels(i, 16, 24))
        members[f"{i:05d}.jpg"] = data[: len(data) // 2] if i % 2 else data
        members[f"{i:05d}.txt"] = " ".join(["word"] * (3 + i)).encode()
    return write_tar(tmp_path / "00000.tar", members)


def test_a_good_data_set(command, tiny, tmp_path):
    file = tmp_path / "doctor.json"
    arguments = (f"--workdir={tmp_path / 'w'}", f"--json={file}", "--sample=50", "--rate=1e9")
    code, out, err = command("doctor", *tiny, *arguments)
    assert code == 0, err
    for words in (
        "100 of 100 examples take part",
        "evaluation: retrieval/scenes, 30 images",
        "50 random examples, 0.0% bad",
        "width 32 / 32 / 32",
        "--rate",
    ):
        assert words in out
    numbers = json.loads(file.read_text())
    assert numbers["doctor/sampled"] == 50 and numbers["doctor/median_image_bytes"] == 32 * 32 * 3
    assert numbers["time/cores_needed"] > 1
    stages = ("read", "decode", "augment", "tokenise")
    total = sum(numbers[f"time/{stage}_ms"] for stage in stages)
    assert numbers["time/images_per_second_per_core"] == pytest.approx(1000 / total)


def test_a_bad_one(command, tiny, tmp_path, shards):
    file = tmp_path / "doctor.json"
    code, out, err = command(
        "doctor",
        *tiny,
        f"--workdir={tmp_path / 'w'}",
        f"--json={file}",
        "--config.data.source=tar",
        f"--config.data.tar.shards={shards}",
        "--config.data.cache=none",
        "--config.tokenizer.context_length=16",
    )
    assert code == 1, err
    numbers = json.loads(file.read_text())
    assert numbers["doctor/bad_share"] == 0.5  # a sample of all examples has each of them once
    assert numbers["doctor/failed/truncated_image"] == 20
    assert (numbers["doctor/median_width"], numbers["doctor/median_height"]) == (24, 16)
    assert numbers["doctor/cut_share"] > 0.3
    assert "truncated_image" in out and shards in out and "training would stop" in out


@pytest.mark.parametrize(
    "flag", ["--sample=0", "--sample=x", "--rate=-1", "--json=/no/such/f", "--json=/"]
)
def test_wrong_flags(command, tiny, tmp_path, flag):
    code, _, err = command("doctor", *tiny, f"--workdir={tmp_path / 'w'}", flag)
    assert code == 2 and flag.split("=")[0] in err


@pytest.mark.parametrize("name", ["doctor", "tokenizer"])
def test_a_workdir_that_cannot_be_made(command, tiny, tmp_path, name):
    (tmp_path / "file").write_text("")
    code, _, err = command(name, *tiny, f"--workdir={tmp_path / 'file' / 'w'}")
    assert code == 2 and err.count("\n") == 1 and "cannot be written" in err


def test_the_rate_of_an_earlier_run(command, tiny, tmp_path):
    workdir = tmp_path / "w"
    workdir.mkdir()
    line = {
        "step": 1,
        "train/loss": 1.0,
        "time/examples_per_second": 300.0,
        "time/data_wait_share": 0.25,
    }
    (workdir / "metrics.jsonl").write_text(json.dumps(line) + "\n")
    code, out, err = command("doctor", *tiny, f"--workdir={workdir}", "--sample=5")
    assert code == 0, err
    assert "for 400 a second (what the run in this workdir could take)" in out
