"""Columns: every id once, valid at the end or not at all, and nobody else's values."""

import json

import numpy as np
import pytest

from nlip_jax import columns, phases
from nlip_jax.columns import ColumnVersion, read_column
from nlip_jax.errors import RunError, UsageError


@pytest.fixture
def column(tmp_path) -> ColumnVersion:
    made = ColumnVersion(directory=tmp_path / "columns" / "pair_loss" / "0001", key="key")
    made.prepare()
    return made


def fill(column: ColumnVersion, ids: np.ndarray, *, parts: int = 3) -> None:
    """Value of an id: its square."""
    for i, some in enumerate(np.array_split(ids, parts)):
        column.append(i, ids=some, values=(some**2).astype(np.float32))


def every_id(start: int, stop: int) -> np.ndarray:
    return np.ones(stop - start, bool)


@pytest.fixture
def shuffled() -> np.ndarray:
    return np.random.default_rng(0).permutation(20)


def test_fragments_in_any_order_become_a_dense_column(column, shuffled):
    fill(column, shuffled)
    assert column.num_own_fragments() == 3 and not column.is_done
    column.merge(num_examples=20, present=every_id, meta={"what": "squares"})
    values = column.read()
    assert values.dtype == np.float32 and isinstance(values, np.memmap)
    np.testing.assert_array_equal(values, np.arange(20) ** 2)
    assert column.is_done and column.meta() == {"what": "squares"}
    assert {p.name for p in column.directory.iterdir()} == {
        "DONE",
        "KEY",
        "part-00000-of-00001.npy",
    }


def test_values_may_be_rows(column):
    column.append(0, ids=np.array([2, 0, 1]), values=np.eye(3, 4, dtype=np.int32))
    column.merge(num_examples=3, present=every_id)
    np.testing.assert_array_equal(column.read(), np.eye(3, 4, dtype=np.int32)[[1, 2, 0]])


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda ids: ids[:-2], "2 examples no value and 0 one too many"),
        (lambda ids: np.append(ids, ids[:1]), "0 examples no value and 1 one too many"),
        (lambda ids: np.append(ids[:-1], ids[:1]), "1 examples no value and 1 one too many"),
    ],
)
def test_ids_that_are_missing_or_come_twice(column, shuffled, change, words):
    fill(column, change(shuffled))
    with pytest.raises(RunError, match=words):
        column.merge(num_examples=20, present=every_id)
    assert not column.is_done


def test_no_fragment_at_all(column):
    with pytest.raises(RunError, match="20 examples no value"):
        column.merge(num_examples=20, present=every_id)


def test_another_key_is_another_computation(column, shuffled):
    fill(column, shuffled)
    column.merge(num_examples=20, present=every_id)
    other = ColumnVersion(directory=column.directory, key="other")
    assert column.is_done and not other.is_done
    other.prepare()
    assert {p.name for p in column.directory.iterdir()} == {"KEY"}


def test_the_same_key_finds_its_fragments_again(column, shuffled):
    fill(column, shuffled)
    again = ColumnVersion(directory=column.directory, key=column.key)
    again.prepare()
    assert again.num_own_fragments() == 3


def test_fragments_of_another_process_are_not_ones_own(column, shuffled):
    fill(column, shuffled)
    source = column.directory / "fragment-00000-00000000.npz"
    source.rename(column.directory / "fragment-00001-00000000.npz")
    assert column.num_own_fragments() == 2
    assert sum(len(ids) for ids, _ in column.fragments()) == 20


def test_a_folder_without_a_key_is_cleared(column):
    """A kill between making the folder and writing its key, or while it was cleared."""
    (column.directory / "KEY").unlink()
    (column.directory / "fragment-00000-00000000.npz").write_bytes(b"of nobody")
    column.prepare()
    assert column.num_own_fragments() == 0


def test_half_written_files_are_not_read(column, shuffled):
    fill(column, shuffled)
    (column.directory / "fragment-00000-00000003.tmp").write_bytes(b"half a fragm")
    (column.directory / "part-00000-of-00001.npy.tmp").write_bytes(b"half a par")
    (column.directory / "DONE.123.tmp").write_bytes(b'{"key": "ke')
    assert column.num_own_fragments() == 3 and not column.is_done
    column.merge(num_examples=20, present=every_id)
    np.testing.assert_array_equal(column.read(), np.arange(20) ** 2)


def test_lost_parts_are_noticed(column):
    column.write_dense(np.zeros(4, np.float32))
    part = column.directory / "part-00000-of-00001.npy"
    part.rename(column.directory / "part-00000-of-00002.npy")
    with pytest.raises(RunError, match="lost files"):
        column.read()
    (column.directory / "part-00000-of-00002.npy").unlink()
    with pytest.raises(RunError, match="lost files"):
        column.read()


def test_parts_of_several_processes_are_one_column(column):
    for i in range(2):
        np.save(column.directory / f"part-{i:05d}-of-00002.npy", np.arange(3) + 3 * i)
    with pytest.raises(RunError, match="lost files"):
        column.read()
    (column.directory / "DONE").write_text('{"key": "", "meta": {}}')
    np.testing.assert_array_equal(column.read(), np.arange(6))


def test_ranges_of_processes_cover_all_ids(monkeypatch):
    for n in (0, 1, 2, 7, 1_800_000_000):
        monkeypatch.setattr(columns.jax, "process_count", lambda: 3)
        ranges = []
        for process in range(3):
            monkeypatch.setattr(columns.jax, "process_index", lambda process=process: process)
            ranges.append(columns.own_range(n))
        edges = [0, *(stop for _, stop in ranges)]
        assert edges[-1] == n and [start for start, _ in ranges] == edges[:-1]
        assert max(b - a for a, b in ranges) - min(b - a for a, b in ranges) <= 1


class Killed(BaseException):
    """Nothing catches it, so what lies on disk is what a kill would leave."""


@pytest.mark.parametrize(
    ("killed_at", "is_done"),
    [("column_merge", False), ("column_before_done", False), ("column_after_done", True)],
)
def test_killed_while_merging(column, shuffled, killed_at, is_done, monkeypatch):
    def enter(name, **details):
        if name == killed_at:
            raise Killed

    fill(column, shuffled)
    monkeypatch.setattr(phases, "enter", enter)
    with pytest.raises(Killed):
        column.merge(num_examples=20, present=every_id)
    monkeypatch.undo()
    assert column.is_done == is_done
    if not is_done:
        column.prepare()
        column.merge(num_examples=20, present=every_id)
    np.testing.assert_array_equal(column.read(), np.arange(20) ** 2)


def test_done_is_the_last_file_written(column, shuffled, monkeypatch):
    """Whoever sees DONE sees the parts; the fragments go afterwards."""
    fill(column, shuffled)
    seen = []
    monkeypatch.setattr(
        phases, "enter", lambda name, **_: seen.append((name, _names(column), column.is_done))
    )
    column.merge(num_examples=20, present=every_id)
    fragments = {f"fragment-00000-{i:08d}.npz" for i in range(3)}
    part = {"part-00000-of-00001.npy"}
    assert seen == [
        ("column_merge", {"KEY"} | fragments, False),
        ("column_before_done", {"KEY"} | fragments | part, False),
        ("column_after_done", {"KEY", "DONE"} | part, True),
    ]
    assert json.loads((column.directory / "DONE").read_text())["key"] == "key"


def _names(column: ColumnVersion) -> set[str]:
    return {path.name for path in column.directory.iterdir()}


# --- examples that take no part, and other runs ---------------------------------------------------
def test_ids_that_are_not_expected_have_no_number(column, shuffled):
    def even(start, stop):
        return np.arange(start, stop) % 2 == 0

    fill(column, shuffled[shuffled % 2 == 0])
    column.merge(num_examples=20, present=even)
    values = column.read()
    np.testing.assert_array_equal(values[::2], np.arange(0, 20, 2) ** 2)
    assert np.isnan(values[1::2]).all()


def test_an_id_that_was_not_expected(column, shuffled):
    fill(column, shuffled)
    with pytest.raises(RunError, match="0 examples no value and 20 one too many"):
        column.merge(num_examples=20, present=lambda start, stop: ~every_id(start, stop))


OLD, NEW = {"length": 20, "fingerprint": "a"}, {"length": 30, "fingerprint": "b"}


def test_a_column_fits_data_that_extend_those_it_was_made_for(tmp_path, shuffled):
    made = ColumnVersion(directory=tmp_path / "noise_prob" / "0001", key="key", made_for=OLD)
    made.prepare()
    fill(made, shuffled)
    made.merge(num_examples=20, present=every_id)
    values = read_column(made.directory, numberings=[OLD, NEW])
    np.testing.assert_array_equal(values, np.arange(20) ** 2)
    for others in ([NEW], [], [OLD | {"length": 19}]):
        with pytest.raises(UsageError, match="made for other data"):
            read_column(made.directory, numberings=others)


def test_no_column_of_another_run(tmp_path, column, shuffled):
    with pytest.raises(UsageError, match="no finished column"):
        read_column(tmp_path / "nowhere", numberings=[OLD])
    fill(column, shuffled)
    column.merge(num_examples=20, present=every_id)
    with pytest.raises(UsageError, match=f"there is {column.directory}"):
        read_column(tmp_path / "columns", numberings=[OLD])
