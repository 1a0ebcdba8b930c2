"""Exact resume: one stream of ids and pixels, wherever it is stopped and whoever reads on."""

import hashlib
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from resume_child import BATCH, NUM_BATCHES, make_order, make_source, stream
from tars import write_tar

CHILD = Path(__file__).with_name("resume_child.py")


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """Two tars of small JPEGs, every seventh of them broken; made once."""
    made = tmp_path_factory.mktemp("resume")
    for shard, members in enumerate(make_source()):
        write_tar(made / f"{shard:05d}.tar", members)
    return made


def digest(rows) -> list[tuple[int, str]]:
    """(id, hash of the pixels) of every row."""
    return [
        (int(i), hashlib.blake2b(pixels.tobytes() + tokens.tobytes(), digest_size=8).hexdigest())
        for batch in rows
        for i, pixels, tokens in zip(
            batch["example_id"], batch["image"], batch["tokens"], strict=True
        )
    ]


def merged(parts: list[list[dict]]) -> list[dict]:
    """Batches of all processes side by side, in the order of rows."""
    return [
        {name: np.concatenate([part[name] for part in batch]) for name in batch[0]}
        for batch in zip(*parts, strict=True)
    ]


@pytest.fixture(scope="module")
def whole(folder):
    rows = list(stream(folder, start=0, stop=NUM_BATCHES))
    assert sum((batch["failed_id"][:, 0] >= 0).sum() for batch in rows) > 50
    return digest(rows)


@pytest.mark.parametrize("processes", [1, 2, 4])
def test_two_hundred_stops_with_other_numbers_of_processes(folder, whole, processes):
    """A run on `processes` hosts, stopped 200 times, half of the time to go on with others.

    Each part is opened anew from one integer, the number of batches that were read.
    """
    rng = np.random.default_rng(processes)
    stops = np.sort(rng.choice(np.arange(1, NUM_BATCHES), 200, replace=False))
    changes = rng.permutation(200) < 100
    read, position, count = [], 0, processes
    for stop, change in zip([*stops, NUM_BATCHES], [*changes, False], strict=True):
        shares = np.array_split(np.arange(BATCH), count)
        parts = [list(stream(folder, start=position, stop=stop, rows=share)) for share in shares]
        read += digest(merged(parts))
        position = json.loads(json.dumps(int(stop)))
        if change:
            count = int(rng.choice([n for n in (1, 2, 4) if n != count]))
    assert read == whole


def test_every_row_is_an_example_that_can_be_read(folder, whole):
    bad = {i for i in range(make_order(folder).draw.members.num_ids) if i % 7 == 3}
    assert not bad & {example_id for example_id, _ in whole}


@pytest.mark.slow  # six starts of worker processes
def test_sigkills_with_worker_processes(folder, whole, tmp_path):
    """Killed six times, each time in another batch, with two worker processes under way."""
    log = tmp_path / "rows.jsonl"
    for kill_after in (3, 9, 10, 27, 41, 60, None):
        command = [sys.executable, str(CHILD), str(folder), str(log)]
        path = dict(os.environ, PYTHONPATH=str(CHILD.parents[2]))
        child = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=path)
        for line in child.stdout:
            if kill_after is not None and int(line) >= kill_after:
                child.send_signal(signal.SIGKILL)
        child.stdout.close()
        assert child.wait() == (0 if kill_after is None else -signal.SIGKILL)
    read = [tuple(row) for line in log.read_text().splitlines() for row in json.loads(line)[1]]
    assert read == whole[: len(read)] and len(read) == 80 * BATCH
