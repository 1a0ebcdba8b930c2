"""Every mistake is one clear line and exit code 2, before anything is compiled."""

import io
import json
import tarfile

import numpy as np
import pytest
from PIL import Image

from configs import base
from nlip_jax.commands import train_command
from nlip_jax.commands.table import COMMANDS
from nlip_jax.config import to_json


@pytest.fixture(autouse=True)
def nothing_is_compiled(monkeypatch):
    def fail(*args, **kwargs):
        raise AssertionError("reached the compiler")

    monkeypatch.setattr(train_command, "compile_step", fail)


def make_tar(path, *, caption=b"a red circle", count=3):
    path.parent.mkdir(parents=True, exist_ok=True)
    picture = io.BytesIO()
    Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(picture, "JPEG")
    with tarfile.open(path, "w") as tar:
        for i in range(count):
            members = {f"{i:04d}.jpg": picture.getvalue()}
            if caption is not None:
                members[f"{i:04d}.txt"] = caption
            for name, content in members.items():
                info = tarfile.TarInfo(name)
                info.size = len(content)
                tar.addfile(info, io.BytesIO(content))
    return path


@pytest.mark.parametrize(
    ("argument", "words"),
    [
        ("--config.nothing=1", ["config.nothing", "configs/base.py"]),
        ("--config.data.nothing=1", ["config.data.nothing"]),
        ("--config.method=blip", ["blip", "choose one of clip"]),
        ("--config.method=no.such:thing", ["no.such"]),
        ("--config.mesh.rules=(1, 2)", ["1 is not of the form", "REGEX -> STRATEGY"]),
        ("--config.compilation_cache=", ["compilation_cache=''", "auto or none"]),
        ("--config.batch_size=20", ["20", "8 devices", "multiple of 8"]),
        ("--config.batch_size=many", ["batch_size", "many"]),
        ("--config.evaluation.rows_per_device=0", ["evaluation.rows_per_device=0", "[1, inf)"]),
        ("--config.mesh.fsdp=3", ["mesh.fsdp=3", "8 devices"]),
        ("--config.mesh.tensor=3", ["mesh.tensor=3", "8 devices"]),
        ("--config.mesh.tensor=4", ["query", "mesh.tensor=4"]),  # two heads
        ("--config.mesh.slices=2", ["mesh.slices=2", "8 devices"]),
        ("--config.mesh.fsdp=2", ["max_replicated", "fsdp_min_bytes"]),  # all are small
        ("--config.mesh.rules=('.* -> zero3',)", ["zero3", "replicate, fsdp, tensor:AXIS"]),
        ("--config.mesh.rules=('conv -> fsdp', '.* -> fsdp')", ["conv", "matches no parameter"]),
        (
            "--config.mesh.rules=('kernel -> fsdp', 'mlp -> replicate', '.* -> fsdp')",
            ["kernel -> fsdp", "mlp -> replicate", "narrower"],
        ),
        ("--config.total=12 bananas", ["12 bananas", "steps, epochs, examples"]),
        ("--config.total=0 steps", ["total"]),
        ("--config.total=10 %", ["total"]),
        ("--config.nlip.warmup=12 steps", ["nlip.warmup", "12"]),
        ("--config.nlip.form=other", ["smoothed_targets, mixture_likelihood"]),
        ("--config.nlip.model=four_parts", ["dual_encoder"]),
        ("--config.nlip.weight=1.5", ["nlip.weight=1.5"]),
        ("--config.loss.similarity=cosine", ["dot, token_max"]),
        ("--config.loss.similarity=token_max", ["ensemble"]),
        ("--config.optimizer.name=sgd", ["adamw, lamb, adafactor"]),
        ("--config.optimizer.learning_rate=nan", ["finite"]),
        ("--config.schedule.name=step", ["constant, cosine, linear, rsqrt"]),
        ("--config.schedule.warmup=50 steps", ["50 steps", "12"]),
        ("--config.data.source=hdf5", ["synthetic, tar", "mixture"]),
        ("--config.data.source=tfds", ["tfds.name"]),
        ("--config.data.source=mixture", ["mixture_part"]),
        ("--config.data.keep_column=/no/such/column", ["no finished column"]),
        ("--config.data.keep_range=(0.7, 0.2)", ["(0.7, 0.2)", "lower one first"]),
        ("--config.data.keep_range=(0.7,)", ["(0.7,)", "two numbers"]),
        ("--config.data.augment.policy=mixup", ["none, randaugment", "autoaugment"]),
        ("--config.data.mask_rate=0.0", ["mask_rate"]),
        ("--config.data.source=tar", ["shards"]),
        ("--config.data.resize=stretch", ["center_crop, squash"]),
        ("--config.data.cache=disk", ["none, memory"]),
        ("--config.data.workers=2", ["cache", "workers"]),
        ("--config.data.crop_scale=(0.0,1.0)", ["crop_scale"]),
        ("--config.data.synthetic.mismatched=0.95", ["mismatched"]),
        ("--config.data.plant_mismatch=1.0", ["1.0"]),
        ("--config.data.image_size=18", ["patch_size"]),
        ("--config.model.image.heads=3", ["heads"]),
        ("--config.model.image.pool=last", ["cls"]),
        ("--config.model.dtype=float16", ["float32", "bfloat16"]),
        ("--config.model.dropout=1.0", ["model.dropout=1.0", "[0, 1)"]),
        ("--config.accumulation.micro_batches=2", ["micro_batches=2", "3 rows", "1, 3"]),
        ("--config.accumulation.micro_batches=0", ["micro_batches=0"]),
        ("--config.accumulation.kind=plain", ["another loss", "kind='exact'"]),
        ("--config.accumulation.kind=sum", ["kind='sum'", "exact"]),
        ("--config.ema.decay=1.0", ["ema.decay=1.0"]),
        ("--config.tokenizer.model=/no/such.model", ["/no/such.model"]),
        ("--config.tokenizer.vocab_size=5", ["vocab_size"]),
        ("--no_such_flag=1", ["no_such_flag"]),
        ("--profile=5", ["--profile=5", "--profile=20..25"]),
        ("--profile=5..13", ["--profile=5..13", "12 steps"]),
        ("--config.log.peak_tflops=-1.0", ["log.peak_tflops=-1.0"]),
        ("--config.compilation_cache=setup.cfg", ["compilation_cache=setup.cfg", "auto or none"]),
        ("stray", ["stray"]),
    ],
)
def test_wrong_configuration(command, tiny, tmp_path, argument, words):
    code, out, err = command("train", *tiny, f"--workdir={tmp_path / 'w'}", argument)
    assert code == 2, err
    message = [line for line in err.splitlines() if line.startswith("nlip_jax train:")]
    assert len(message) == 1 and all(word in message[0] for word in words), err
    assert not out


def from_tar(tmp_path, tiny, shards):
    return (
        "train",
        *tiny,
        f"--workdir={tmp_path / 'w'}",
        "--config.data.source=tar",
        f"--config.data.tar.shards={shards}",
    )


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda path: None, ["no shard", "*.tar"]),
        (lambda path: path.write_bytes(b"x" * 20_000), ["is no tar"]),
        (lambda path: path.write_bytes(b"\x1f\x8b" + b"x" * 2_000), ["decompress"]),
        (lambda path: make_tar(path, caption=None), ["caption", "txt", ".jpg"]),
        (lambda path: make_tar(path, caption=b"\xff\xfe\xff"), ["caption"]),
        (lambda path: make_tar(path, caption=b"   "), ["caption"]),
    ],
)
def test_wrong_shards(command, tiny, tmp_path, make, words):
    make(tmp_path / "0.tar")
    code, _, err = command(*from_tar(tmp_path, tiny, tmp_path / "*.tar"))
    assert code == 2, err
    assert err.count("\n") == 1 and all(word in err for word in words), err


def test_an_index_older_than_its_shards(command, tiny, tmp_path):
    make_tar(tmp_path / "0.tar", count=40)
    arguments = from_tar(tmp_path, tiny, tmp_path / "*.tar")
    code, out, _ = command("index", *arguments[1:])
    assert code == 0 and "images 40" in out
    make_tar(tmp_path / "0.tar", count=41)
    code, _, err = command(*arguments)
    assert code == 2 and "changed since" in err and "nlip_jax index" in err


def test_sampled_captions_have_no_noise_probability(command, tiny, tmp_path):
    make_tar(tmp_path / "0.tar", count=40)
    arguments = from_tar(tmp_path, tiny, tmp_path / "*.tar")
    code, _, err = command(*arguments, "--config.data.tar.captions=sample")
    assert code == 2 and "expand" in err


def test_a_folder_that_holds_another_run(command, tiny, tmp_path):
    (tmp_path / "w" / "checkpoints" / "4").mkdir(parents=True)
    (tmp_path / "w" / "config.json").write_text(to_json(base.get_config()))
    code, _, err = command("train", *tiny, f"--workdir={tmp_path / 'w'}")
    assert code == 2 and "config.batch_size=256, now it is 24" in err and "--workdir" in err


def test_a_folder_of_another_version(command, tiny, tmp_path):
    (tmp_path / "w" / "checkpoints" / "4").mkdir(parents=True)
    older = json.loads(to_json(base.get_config()))
    del older["align"]
    (tmp_path / "w" / "config.json").write_text(json.dumps(older))
    (tmp_path / "w" / "data.json").write_text("{}")
    for argv in (["train", *tiny], ["replay", "--step=2"]):
        code, _, err = command(*argv, f"--workdir={tmp_path / 'w'}")
        assert code == 2 and "another version" in err and "config.align.label_smoothing" in err
    (tmp_path / "w" / "config.json").write_text("{")
    code, _, err = command("replay", "--step=2", f"--workdir={tmp_path / 'w'}")
    assert code == 2 and "is damaged" in err


def test_a_folder_that_holds_something_else(command, tiny, tmp_path):
    (tmp_path / "w").mkdir()
    (tmp_path / "w" / "thesis.tex").write_text("x")
    code, _, err = command("train", *tiny, f"--workdir={tmp_path / 'w'}")
    assert code == 2 and "thesis.tex" in err


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (["train"], ["--config"]),
        (["train", "--config=configs/none.py"], ["configs/none.py"]),
        (["train", "--config=configs/quickstart.py:size=3"], ["method=NAME"]),
        (["fly"], ["choose one of", "train"]),
        (["benchmark", "everything"], ["step|model"]),
        (["index", "--config=configs/quickstart.py"], ["source='synthetic'"]),
    ],
)
def test_wrong_usage(command, argv, words):
    code, _, err = command(*argv)
    assert code == 2 and err.count("\n") == 1 and all(word in err for word in words), err


@pytest.mark.parametrize("name", list(COMMANDS))
def test_help_is_complete(command, name):
    code, out, _ = command(name, "--help")
    assert code == 0 and f"nlip_jax {name}" in out
    if name == "train":
        assert "--config.optimizer.learning_rate" in out and "--workdir" in out
    if name == "doctor":
        assert "\n  --evaluation  look at" in out and "\n  --sample=VALUE  " in out
