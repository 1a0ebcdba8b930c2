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


def write_classes(folder, names, *, bad=()):
    for i, name in enumerate(names):
        (folder / name).mkdir(parents=True)
        data = encode(pixels(i, 8, 8))
        (folder / name / "0.jpg").write_bytes(data[: len(data) // 2] if name in bad else data)


SAME = ("airplane", "bird", "cat", "deer", "dog", "horse", "ship", "truck")
CIFAR10, STL10 = (*SAME, "automobile", "frog"), (*SAME, "car", "monkey")


def test_evaluation_sets_alone(command, tmp_path):
    """No data, no vocabulary; it goes on after what is bad, and says all of it."""
    sets = tmp_path / "sets"
    write_classes(sets / "cifar10" / "test", CIFAR10)
    write_classes(sets / "stl10" / "test", STL10, bad=("cat",))
    write_classes(sets / "gtsrb" / "test", ("00000", "halt"))
    file = tmp_path / "doctor.json"
    group = "group=protoclip,layout=image_folder,sets=cars+cifar10+gtsrb+stl10"
    arguments = (
        f"--config=configs/evaluation_sets.py:{sets},{group}",
        f"--workdir={tmp_path / 'w'}",
        "--evaluation",
        f"--json={file}",
    )
    code, out, err = command("doctor", *arguments, "--sample=100")
    assert code == 1, err
    lines = out.splitlines()
    assert lines[-1] == "1 of 4 evaluation sets are good"
    good = (
        "zero_shot/cifar10: 10 images, 10 classes (airplane, automobile, bird, ...), 1 to 1 images "
        "a class, 18 templates (a photo of a {}., a blurry photo of a {}., a black and white photo "
        "of a {}., ...)"
    )
    assert good in lines
    bad = [line for line in lines if line.startswith("bad: ")]
    assert len(bad) == 3
    assert "zero_shot/cars: config.evaluators.zero_shot.cars.image_folder: root=" in bad[0]
    assert "1 folder without a class name (halt) and 42 class names without" in bad[1]
    assert "zero_shot/stl10: image 3, " in bad[2] and "cat/0.jpg" in bad[2]
    numbers = json.loads(file.read_text())
    assert numbers["doctor/bad_sets"] == 3 and numbers["doctor/zero_shot/cars/problems"] == 1
    assert numbers["doctor/zero_shot/cifar10/images"] == 10
    assert numbers["doctor/zero_shot/cifar10/templates"] == 18

    one = arguments[0].replace("cars+cifar10+gtsrb+stl10", "cifar10")
    code, out, err = command("doctor", one, *arguments[1:])
    assert code == 0, err
    assert out.splitlines()[-1] == "1 of 1 evaluation sets are good"


def test_all_kinds_of_evaluation_sets(command, tiny, tmp_path):
    code, out, err = command("doctor", *tiny, f"--workdir={tmp_path / 'w'}", "--evaluation")
    assert code == 0, err
    assert "retrieval/scenes: 30 images, 30 captions" in out
    assert "11 templates" in out and "2 of 2 evaluation sets are good" in out


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (("--evaluation=some",), "--evaluation=some: takes no value"),
        (("--evaluation", "--rate=5"), "--rate=5: --evaluation measures no speed"),
        (("--evaluation", "--sample=0"), "--sample=0"),
    ],
)
def test_wrong_flags_of_evaluation(command, tiny, tmp_path, flags, words):
    code, _, err = command("doctor", *tiny, f"--workdir={tmp_path / 'w'}", *flags)
    assert code == 2 and words in err


def test_no_evaluation_sets(command, tmp_path):
    code, _, err = command(
        "doctor", "--config=configs/base.py", f"--workdir={tmp_path / 'w'}", "--evaluation"
    )
    assert code == 2 and "config.evaluators has no sets" in err
