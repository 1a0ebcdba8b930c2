"""Every part of `benchmark data`, with a few small images; nothing here looks at times."""

import io
import random
import tarfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from nlip_jax.commands.benchmarks import (
    data_contender,
    data_host,
    data_ours,
    data_quality,
    data_shards,
    data_speed,
    data_tfdata,
    data_webdataset,
)
from nlip_jax.commands.benchmarks.data_contender import Cost
from nlip_jax.commands.benchmarks.data_setting import prepare
from nlip_jax.errors import RunError

SCALE = (0.5, 1.0)


@pytest.fixture(scope="module")
def setting(tmp_path_factory):
    folder = tmp_path_factory.mktemp("benchmark") / "data"
    return prepare(folder, num_images=32, distinct=5, width=80, height=60, size=24, batch_size=8)


def test_shards_are_deterministic_and_repeat_their_images(tmp_path):
    kept = []
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        made = data_shards.make_shards(
            tmp_path / name, num_images=5, num_shards=2, distinct=2, width=64, height=48
        )
        kept.append([Path(path).read_bytes() for path in made.paths])
        with tarfile.open(made.paths[1]) as tar:
            members = {member.name: tar.extractfile(member).read() for member in tar}
        assert members["000000003.jpg"] == made.images[1]
        assert members["000000003.txt"].decode() == made.captions[3]
    assert kept[0] == kept[1]
    assert Image.open(io.BytesIO(made.images[0])).size == (64, 48)
    assert len(set(made.captions)) == 5 and made.captions[0].count(" ") >= 9


def test_images_are_as_hard_for_a_codec_as_photographs():
    rng = np.random.default_rng(0)
    textures = data_shards.make_textures(rng, count=1, width=1280, height=960)
    image = data_shards.draw(rng, textures, width=640, height=480)
    file = io.BytesIO()
    Image.fromarray(image).save(file, "JPEG", quality=data_shards.QUALITY)
    assert 70_000 < file.tell() < 130_000
    assert (np.isin(image, (0, 255))).mean() < 0.2


def test_crops_for_webdataset_are_those_of_torchvision():
    gradient = np.broadcast_to(np.linspace(0, 255, 80, dtype=np.uint8)[None, :, None], (60, 80, 3))
    image = Image.fromarray(np.ascontiguousarray(gradient))
    random.seed(0)  # now and then an aspect close to that of the whole image fits into it
    whole = data_webdataset.random_resized_crop(image, size=24, scale=(1.0, 1.0))
    expected = image.resize((24, 24), Image.Resampling.BICUBIC)
    assert np.array_equal(np.asarray(whole), np.asarray(expected))
    part = np.asarray(data_webdataset.random_resized_crop(image, size=24, scale=(0.1, 0.2)))
    covered = (int(part[0, -1, 0]) - int(part[0, 0, 0])) / 255
    assert part.shape == (24, 24, 3) and 0.2 < covered < 0.7


def test_pipelines_take_turns(setting):
    entries, missing = data_speed.find_entries(setting)
    numbers = data_speed.compare(setting, scales=[SCALE], workers=[1], rounds=1, batches=64)
    names = {name for name, entry in entries.items() if not entry.headline_only}
    assert set(entries) | set(missing) >= {"ours", "webdataset", "tfdata"}
    for name in names - {"ours"}:
        ratio = numbers[f"data/scale_0.5/workers_1/ratio_vs_{name}"]
        ours, theirs = (
            numbers[f"data/scale_0.5/workers_1/{prefix}images_per_second_per_core"]
            for prefix in ("", f"{name}_")
        )
        assert ratio == pytest.approx(ours / theirs) and ratio > 0


@pytest.mark.skipif(not data_webdataset.HAS_WEBDATASET, reason="webdataset is not installed")
@pytest.mark.parametrize("output", data_webdataset.OUTPUTS)
def test_webdataset_makes_what_we_make(setting, output):
    if output != "array":
        pytest.importorskip("torch", reason="tensors need torch")
    arguments = setting.arguments(scale=SCALE, workers=1) | {"output": output}
    arguments.pop("workers")
    dataset = data_webdataset.make_dataset(shards=list(setting.shards.paths), **arguments)
    images, tokens = map(np.asarray, next(iter(dataset)))
    if output == "normalised":
        assert images.shape == (8, 3, 24, 24) and images.dtype == np.float32
        assert images.min() < 0 < images.max()
    else:
        assert images.shape == (8, 24, 24, 3) and images.dtype == np.uint8
    assert tokens.shape == (8, 32) and (tokens[:, 0] == tokens[0, 0]).all()


@pytest.mark.skipif(not data_webdataset.HAS_WEBDATASET, reason="webdataset is not installed")
def test_webdataset_without_torch_sends_batches_through_pipes(setting):
    batches = data_webdataset.open_images(
        shards=list(setting.shards.paths),
        output="array",
        **setting.arguments(scale=SCALE, workers=1),
    )
    assert next(batches).shape == next(batches).shape == (8, 24, 24, 3)


def test_tfdata_makes_what_we_make(setting):
    entries, missing = data_speed.find_entries(setting)
    if "tfdata" in missing:
        pytest.skip(missing["tfdata"])
    arguments = setting.arguments(scale=SCALE, workers=1) | entries["tfdata"].arguments
    where = {"folder": setting.folder, "python": entries["tfdata"].python}
    with data_contender.start(data_tfdata.__name__, arguments, **where) as tfdata:
        assert tfdata.take(2).images == 16


def test_pipelines_that_cannot_run_are_named(setting, monkeypatch, capfd):
    monkeypatch.setenv(data_tfdata.PYTHON_VARIABLE, "/no/such/python")
    monkeypatch.setattr(data_webdataset, "HAS_WEBDATASET", False)
    entries, missing = data_speed.find_entries(setting)
    assert set(entries) == {"ours"}
    assert "pip install" in missing["webdataset"]
    assert "/no/such/python" in missing["tfdata"]


def test_costs_are_those_of_all_processes(tmp_path):
    """A pipeline whose batches each burn a known time, half of it in a child that ends."""
    module = tmp_path / "path" / "burner.py"
    module.parent.mkdir()
    module.write_text(
        "import subprocess, sys, time\n"
        "from nlip_jax.commands.benchmarks.data_contender import serve\n"
        "burn = 'import time\\nwhile time.process_time() < 0.3: pass'\n"
        "def batches():\n"
        "    while True:\n"
        "        subprocess.run([sys.executable, '-c', burn])\n"
        "        end = time.process_time() + 0.3\n"
        "        while time.process_time() < end: pass\n"
        "        yield [0] * 7\n"
        "serve(batches())\n"
    )
    with data_contender.start("burner", {}, folder=tmp_path) as burner:
        cost = burner.take(2)
        assert len(burner.memory_bytes()) == 1
    assert cost.images == 14
    assert cost.cpu_seconds == pytest.approx(1.2, abs=0.3)


def test_a_pipeline_that_ends_says_why(tmp_path):
    with (
        pytest.raises(RunError, match="data_webdataset ended: TypeError"),
        data_contender.start(data_webdataset.__name__, {"no": "such argument"}, folder=tmp_path),
    ):
        pass


def test_summary_divides_medians():
    costs = {
        "ours": [Cost(100, 1.0, 0.5), Cost(100, 2.0, 1.0), Cost(100, 1.0, 0.5)],
        "webdataset": [Cost(100, 4.0, 2.0)] * 3,
    }
    found = data_speed.summary(costs)
    assert found["images_per_second_per_core"] == 100
    assert found["images_per_second"] == 200
    assert found["webdataset_images_per_second_per_core"] == 25
    assert found["ratio_vs_webdataset"] == 4


def test_stages(setting):
    arguments = setting.arguments(scale=SCALE, workers=0) | {"index": setting.index}
    rows, host, device = (
        next(data_ours.open_stage(until=stage, **arguments)) for stage in data_ours.STAGES
    )
    assert len(rows) == len(host) == len(device) == 8
    assert host.shape == (8, 24, 24, 3) and host.dtype == np.uint8
    assert np.array_equal(host, np.asarray(device))


@pytest.mark.slow
def test_host_overhead(setting):
    numbers = data_host.overhead(setting, rounds=1, batches=64)
    assert numbers["data/host_overhead_share"] > -1


def test_memory_and_first_id(setting):
    grown = data_host.memory_growth(setting, first=8, last=24)
    assert abs(grown["data/worker_memory_growth_mb"]) < 500
    assert data_host.first_id(num_examples=1000, batch_size=4)["data/order_first_id_seconds"] > 0


def test_psnr_of_our_crops(setting):
    numbers = data_quality.psnr(setting.shards, size=24, count=4)
    assert len(numbers) == 4 and all(20 < value < 80 for value in numbers.values())
