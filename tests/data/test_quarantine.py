"""The account of what could not be read: each example once, counts that resume, and a limit."""

import json

import numpy as np
import pytest

from nlip_jax.data.failures import FAILURES, KINDS, ReadError
from nlip_jax.data.pipeline import RowInfo
from nlip_jax.data.quarantine import Quarantine, read_quarantine
from nlip_jax.data.source import Place
from nlip_jax.errors import RunError


class Shards:
    """Ten examples a shard, two an image."""

    def __len__(self):
        return 100_000

    def image_id(self, example_id):
        return example_id // 2

    def place(self, image_id):
        return Place(f"{image_id // 5:05d}.tar", f"{image_id:09d}")


def rows(*failed: tuple[int, str], size: int = 100) -> RowInfo:
    failed_id, failed_kind = np.full((size, 3), -1), np.zeros((size, 3), np.int8)
    for row, (example_id, kind) in enumerate(failed):
        failed_id[row, 0], failed_kind[row, 0] = example_id, KINDS.index(kind)
    return RowInfo(
        ids=np.arange(size),
        valid=np.ones(size, bool),
        failed_id=failed_id,
        failed_kind=failed_kind,
        stage_seconds=np.zeros(4),
    )


def quarantine(tmp_path, **fields) -> Quarantine:
    defaults = {"source": Shards(), "max_bad_fraction": 0.05}
    return Quarantine(tmp_path / "quarantine.jsonl", **(defaults | fields))


def test_each_example_is_listed_once_with_its_place(tmp_path):
    account = quarantine(tmp_path)
    account.add(rows((25, "truncated_image"), (70, "not_an_image")))
    account.add(rows((25, "truncated_image")))
    again = quarantine(tmp_path, counts=account.counts)
    again.add(rows((25, "truncated_image"), (71, "not_an_image")))
    assert [json.loads(line) for line in again.path.read_text().splitlines()] == [
        {"example_id": 25, "kind": "truncated_image", "shard": "00002.tar", "key": "000000012"},
        {"example_id": 70, "kind": "not_an_image", "shard": "00007.tar", "key": "000000035"},
        {"example_id": 71, "kind": "not_an_image", "shard": "00007.tar", "key": "000000035"},
    ]
    assert again.counts == {"truncated_image": 3, "not_an_image": 2}
    again.add(rows((1, "empty_image")), in_training=False)
    assert again.counts.total() == 5 and len(list(read_quarantine(again.path))) == 4


def test_a_summary_counts_by_kind_and_by_shard(tmp_path):
    account = quarantine(tmp_path)
    assert account.summary() == ""
    account.add(rows((25, "truncated_image"), (26, "truncated_image"), (70, "not_an_image")))
    assert account.summary().startswith(
        "3 examples could not be read: truncated_image 2, not_an_image 1; by shard: "
        "00002.tar 2, 00007.tar 1; "
    )
    account.add(rows(*[(example_id, "empty_image") for example_id in range(100, 180, 10)]))
    assert "and 5 others; " in account.summary()


def test_the_first_of_each_kind_is_told(tmp_path, caplog):
    account = quarantine(tmp_path)
    account.add(rows((25, "truncated_image"), (26, "truncated_image"), (70, "not_an_image")))
    told = [record.getMessage() for record in caplog.records]
    assert len(told) == 2
    assert "truncated_image" in told[0] and "000000012 in 00002.tar" in told[0]


def test_a_line_that_a_kill_cut_off_is_written_again(tmp_path):
    account = quarantine(tmp_path)
    account.add(rows((25, "truncated_image"), (70, "not_an_image")))
    whole = account.path.read_text()
    account.path.write_text(whole[:-9])
    again = quarantine(tmp_path)
    again.add(rows((25, "truncated_image"), (70, "not_an_image")))
    assert again.path.read_text() == whole


def test_too_many_failures_in_a_window_stop_the_run(tmp_path):
    bad = [(i, "damaged_image") for i in range(100, 106)]
    account = quarantine(tmp_path)
    for _ in range(9):
        account.add(rows(*bad))  # 6 %, of too few rows to tell
    with pytest.raises(RunError, match=r"60 of the last 1000 .*fraction=0\.05.*damaged_image"):
        account.add(rows(*bad))


@pytest.mark.parametrize("size", [1, 7, 100])
def test_the_window_forgets(tmp_path, size):
    """Batches of any size: what failed 10,000 rows ago does not count any more."""
    account = quarantine(tmp_path, max_bad_fraction=0.5)
    for _ in range(1400 // size):
        account.add(rows(*[(5, "damaged_image")] * (size // 2), size=size))
    for _ in range(11_000 // size):
        account.add(rows(size=size))
    assert account._bad == 0 and 10_000 <= account._read < 10_000 + size
    assert len(account._window) == -(-10_000 // size)


def test_failures_that_lie_apart_do_not(tmp_path):
    account = quarantine(tmp_path)
    for batch in range(300):
        account.add(rows(*[(i, "damaged_image") for i in range(60)] if batch % 100 == 99 else []))
    assert account.counts.total() == 180


def test_kinds_are_a_closed_list():
    assert ReadError("empty_image", "x").kind in FAILURES
    with pytest.raises(ValueError, match="no kind of failure"):
        ReadError("odd", "x")
