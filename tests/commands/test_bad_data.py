"""A run on data of which a part cannot be read: it trains, counts, lists, and resumes exactly."""

import json

import numpy as np
import pytest
from tars import encode, pixels, write_tar

from nlip_jax.data.quarantine import read_quarantine
from nlip_jax.train import stop

BROKEN = {
    3: lambda data: data[: len(data) // 3],
    17: lambda data: b"<html>not found</html>",
    40: lambda data: data[:2],
}


@pytest.fixture(scope="module")
def shards(tmp_path_factory) -> str:
    folder = tmp_path_factory.mktemp("shards")
    for shard in range(2):
        members = {}
        for i in range(shard * 32, shard * 32 + 32):
            data = encode(pixels(i, 16, 16))
            members[f"{i:05d}.jpg"] = BROKEN.get(i, lambda data: data)(data)
            members[f"{i:05d}.txt"] = f"a picture with the number {i}".encode()
        write_tar(folder / f"{shard:05d}.tar", members)
    return f"{folder}/*.tar"


def arguments(tiny, workdir, shards, **fields):
    settings = {
        "data.source": "tar",
        "data.tar.shards": shards,
        "data.cache": "none",
        "data.max_bad_fraction": 0.5,
        "data.plant_mismatch": 0.2,
        **fields,
    }
    return [*tiny, f"--workdir={workdir}", *(f"--config.{k}={v}" for k, v in settings.items())]


def timeless(values):
    return {k: v for k, v in values.items() if not k.startswith(("time/", "eval/time/"))}


def without_clock(path):
    return timeless(json.loads(path.read_text()))


def test_a_run_on_broken_data(  # noqa: PLR0917
    command, tiny, tmp_path, shards, monkeypatch, caplog
):
    code, out, err = command("train", *arguments(tiny, tmp_path / "whole", shards))
    assert code == 0, err
    results = without_clock(tmp_path / "whole" / "results.json")
    assert results["data/failed_examples"] >= 3 and np.isfinite(results["noise/auc"])
    listed = list(read_quarantine(tmp_path / "whole" / "quarantine.jsonl"))
    assert {entry["example_id"] for entry in listed} == set(BROKEN)
    assert {entry["key"] for entry in listed} >= {"00017"}
    kinds = {entry["example_id"]: entry["kind"] for entry in listed}
    assert kinds[3] == "truncated_image" and kinds[17] == "not_an_image"
    assert caplog.text.count("an example was skipped: not_an_image") == 1
    lines = [json.loads(x) for x in (tmp_path / "whole" / "metrics.jsonl").read_text().splitlines()]
    counts = [line["data/failed_examples"] for line in lines if "train/loss" in line]
    assert counts == sorted(counts) and counts[-1] == results["data/failed_examples"]
    assert "report.html" in out
    assert "3 examples could not be read: " in err and "00000.tar 2, " in err
    by_kind = {k: n for k, n in results.items() if k.startswith("data/failed/")}
    assert sum(by_kind.values()) == results["data/failed_examples"] and len(by_kind) == 2
    column = tmp_path / "whole" / "columns" / "noise_prob" / "0001"
    noise_prob = np.load(column / "part-00000-of-00001.npy")
    np.testing.assert_array_equal(np.flatnonzero(np.isnan(noise_prob)), sorted(BROKEN))

    # Stopped in mid-epoch and gone on with, nothing of it differs.
    parts = arguments(tiny, tmp_path / "parts", shards)
    with monkeypatch.context() as patch:
        patch.setattr(stop, "requested", lambda step: step == 7)
        code, _, err = command("train", *parts)
        assert code == 75, err
    code, _, err = command("train", *parts)
    assert code == 0, err
    assert without_clock(tmp_path / "parts" / "results.json") == results
    for name in ("metrics.jsonl", "quarantine.jsonl"):
        whole, resumed = (
            [timeless(json.loads(x)) for x in (tmp_path / w / name).read_text().splitlines()]
            for w in ("whole", "parts")
        )
        assert whole == resumed


def test_a_run_cannot_choose_by_its_own_columns(command, tiny, tmp_path, shards):
    own = arguments(tiny, tmp_path, shards, **{"data.keep_column": tmp_path / "columns" / "a"})
    code, _, err = command("train", *own)
    assert code == 2 and "which makes its columns itself" in err and "\n" not in err.strip(), err


def test_too_much_of_it_stops_the_run(command, tiny, tmp_path, shards):
    limited = arguments(tiny, tmp_path / "w", shards, **{"data.max_bad_fraction": 0.01})
    code, _, err = command("train", *limited)
    assert code == 1 and "max_bad_fraction=0.01" in err and "quarantine.jsonl" in err, err
