"""`benchmark model` at toy size; what the numbers are worth is for accelerators to say."""

import json
import subprocess
import sys

import jax
import pytest

from nlip_jax.commands.benchmarks import model, model_ours
from nlip_jax.commands.benchmarks.model_setting import TOY, VITB16
from nlip_jax.errors import RunError


def search(capacity: int, **fields) -> tuple[int, list[int]]:
    tried = []

    def fits(size: int) -> bool:
        tried.append(size)
        return size <= capacity

    return model_ours.largest(fits, **({"first": 64, "last": 1 << 16} | fields)), tried


def test_the_largest_batch_is_found_to_an_eighth():
    assert search(1000) == (960, [64, 128, 256, 512, 1024, 768, 896, 960])
    assert search(64)[0] == 64
    assert search(10**6, last=256) == (256, [64, 128, 256])
    for capacity in range(64, 3000, 37):
        found, tried = search(capacity)
        assert found <= capacity < found + max(found // 8, 1) + 1
        assert len(tried) == len(set(tried))
    with pytest.raises(RunError, match="not even 64"):
        search(63)


def test_a_given_batch_gives_way_by_eighths():
    assert model_ours.nearest(lambda size: True, 800) == 800
    assert model_ours.nearest(lambda size: size <= 650, 800) == 600
    with pytest.raises(RunError, match="not even half of 800"):
        model_ours.nearest(lambda size: False, 800)


@pytest.mark.parametrize("method", ["clip", "siglip", "nlip"])
def test_a_step_of_every_method_is_measured(monkeypatch, method):
    monkeypatch.setattr(model_ours, "BLOCKS", 1)
    monkeypatch.setattr(model_ours, "CALLS_PER_BLOCK", 1)
    monkeypatch.setattr(model_ours, "peak_tflops", lambda kind: 0.1)
    found = model_ours.measure_step(method, TOY, batch=2)
    numbers = found["numbers"]
    assert found["device_batch"] == 2
    assert (numbers["devices"], numbers["batch_size"]) == (8, 16)
    assert numbers["examples_per_second"] == pytest.approx(16 / numbers["step_seconds"])
    assert numbers["mfu"] > 0 and numbers["loss_share"] > 0


def test_memory_that_is_exhausted_is_a_batch_that_does_not_fit(monkeypatch, capsys):
    def time_step(name, setting, *, mesh, batch):
        if batch > 5 * mesh.size:
            raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory")
        return {"step": 0.5, "loss": 0.01}

    monkeypatch.setattr(model_ours, "_time_step", time_step)
    found = model_ours.measure_step("clip", TOY)
    assert found["device_batch"] == 5
    assert found["numbers"]["loss_share"] == pytest.approx(0.02)
    assert "clip: 8 examples on each device: does not fit" in capsys.readouterr().err


def test_the_loss_alone(monkeypatch):
    small = model.dataclasses.replace(TOY, large_loss=64)
    found = model_ours.measure_loss(small)
    assert found.keys() == {"seconds", "temp_mb", "tflops"}
    assert all(value > 0 for value in found.values())


def fake_parts(monkeypatch, setting) -> list[tuple[str, ...]]:
    started = []

    def run_part(*arguments):
        started.append(arguments)
        if str(model.CONTENDER) in arguments:
            return {"batch_size": 512, "examples_per_second": 1000.0}
        if "large_loss" in arguments:
            return {"setting": setting.name, "numbers": {"seconds": 9.0}}
        numbers = {"devices": 2, "examples_per_second": 3000.0, "mfu": 0.5, "loss_share": 0.01}
        return {"setting": setting.name, "device_batch": 512, "numbers": numbers}

    monkeypatch.setattr(model, "run_part", run_part)
    return started


def test_all_parts_on_an_accelerator(monkeypatch):
    started = fake_parts(monkeypatch, VITB16)
    monkeypatch.setattr(model, "has_contender", lambda: True)
    numbers = model.run()
    assert [part[2:] for part in started[:4]] == [
        ("clip",),
        ("siglip", "512"),
        ("nlip", "512"),
        ("large_loss",),
    ]
    assert json.loads(started[4][1].removeprefix("--setting="))["image_width"] == 768
    for method in ("clip", "siglip", "nlip"):
        assert numbers[f"model/vitb16/{method}/mfu"] == 0.5
        assert numbers[f"model/vitb16/{method}/examples_per_second"] == 3000.0
    assert numbers["model/loss_1048576_seconds"] == 9.0
    assert numbers["model/vitb16/pytorch/clip_over_pytorch"] == 1.5  # for each device


def test_without_an_accelerator_it_says_so(monkeypatch, capsys):
    started = fake_parts(monkeypatch, TOY)
    monkeypatch.setattr(model, "has_contender", lambda: False)
    numbers = model.run()
    assert len(started) == 3
    assert all(name.startswith("model/toy/") for name in numbers)
    err = capsys.readouterr().err
    assert "no accelerator" in err and "nothing to compare with" in err


def test_a_part_that_fails_is_named():
    assert model.run_part("-c", "print('noise'); print('{\"a\": 1}')") == {"a": 1}
    with pytest.raises(RunError, match="exit code 3"):
        model.run_part("-c", "raise SystemExit(3)")


def test_accelerator_hosts_without_the_data_plane_can_run_it():
    code = (
        "import sys; sys.modules |= dict.fromkeys(('grain', 'ml_collections', 'tensorboardX', "
        "'array_record', 'orbax'))\n"
        "from nlip_jax.commands.benchmarks import model, model_ours"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
