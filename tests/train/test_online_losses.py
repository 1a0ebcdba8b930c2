"""Losses kept from training: on disk before their checkpoint, the same whatever was killed."""

import logging

import jax.numpy as jnp
import numpy as np
import pytest
import reference

from nlip_jax.columns import ColumnVersion
from nlip_jax.data.members import Ranges
from nlip_jax.train import online_losses
from nlip_jax.train.online_losses import OnlineLosses, fragments
from nlip_jax.train.recent_losses import mean_losses, recent_losses

N, BATCH, LAST = 40, 12, 20  # examples, rows of a step, last step
WINDOW = range(5, LAST + 1)


def batch_of(step: int) -> tuple[np.ndarray, np.ndarray]:
    """Examples of a step, some of them twice, and their losses, some of which say nothing."""
    rng = np.random.default_rng(step)
    ids = rng.integers(0, N - 3, BATCH)
    losses = rng.gamma(2.0, 2.0, BATCH).astype(np.float32)
    losses[rng.random(BATCH) < 0.1] = np.nan
    losses[rng.random(BATCH) < 0.05] = np.inf
    return ids, losses


def seen(*steps: int) -> list[tuple[int, np.ndarray, np.ndarray]]:
    return [(step, *batch_of(step)) for step in steps or range(1, LAST + 1)]


class Writer:
    """A process of a run; of two, each has every other row."""

    def __init__(self, directory, monkeypatch, *, resume=0, process=0, processes=1, windows=None):
        self.process, self.processes, self.monkeypatch = process, processes, monkeypatch
        self._as_process()
        self.losses = OnlineLosses(
            directory,
            windows=(WINDOW,) if windows is None else windows,
            num_ids=N,
            resume_step=resume,
        )

    def _as_process(self):
        self.monkeypatch.setattr(online_losses.jax, "process_index", lambda: self.process)

    def add(self, step: int) -> None:
        ids, losses = (values[self.process :: self.processes] for values in batch_of(step))
        others = jnp.zeros(len(ids))  # of which nothing is asked
        self.losses.add(step, ids=ids, told={"pair_loss": jnp.asarray(losses), "other": others})

    def flush(self, step: int) -> None:
        self._as_process()
        self.losses.flush(step)


def write(directory, monkeypatch, *, every: int = LAST, processes: int = 1, **fields) -> None:
    writers = [
        Writer(directory, monkeypatch, process=p, processes=processes, **fields)
        for p in range(processes)
    ]
    for step in range(1, LAST + 1):
        for writer in writers:
            writer.add(step)
            if step % every == 0 or step == LAST:
                writer.flush(step)
    monkeypatch.undo()


def means(directory, *, window: range = WINDOW, start: int = 0, stop: int = N) -> np.ndarray:
    return mean_losses(directory, window, start=start, stop=stop).values


# --- the mean -------------------------------------------------------------------------------------
@pytest.mark.parametrize("processes", [1, 2])
@pytest.mark.parametrize("window", [WINDOW, range(9, 12), range(20, 21)], ids=str)
def test_every_example_has_the_mean_of_what_was_seen_of_it(
    tmp_path, monkeypatch, window, processes
):
    write(tmp_path, monkeypatch, every=7, processes=processes)
    expected = reference.recent_losses(seen(), window, N)
    assert np.isnan(expected).any()
    np.testing.assert_allclose(means(tmp_path, window=window), expected, rtol=1e-6)


def test_processes_take_ranges_of_ids(tmp_path, monkeypatch):
    write(tmp_path, monkeypatch, every=4, processes=2)
    parts = [means(tmp_path, start=start, stop=stop) for start, stop in [(0, 13), (13, N)]]
    np.testing.assert_array_equal(np.concatenate(parts), means(tmp_path))


def test_the_same_bits_however_the_rows_lie_in_files(tmp_path, monkeypatch):
    """Sums are exact: so neither a kill nor another number of processes can be seen in them."""
    ways = {"whole": {}, "often": {"every": 1}, "two": {"every": 3, "processes": 2}}
    found = []
    for name, way in ways.items():
        write(tmp_path / name, monkeypatch, **way)
        found.append(means(tmp_path / name))
    np.testing.assert_array_equal(found[0], found[1])
    np.testing.assert_array_equal(found[0], found[2])
    assert found[0].dtype == np.float32


def test_a_huge_loss_is_cut_and_a_small_one_is_not(tmp_path):
    losses = OnlineLosses(tmp_path, windows=[range(1, 3)], num_ids=4, resume_step=0)
    losses.add(1, ids=np.arange(3), told={"pair_loss": jnp.asarray([1e30, 1e-5, 60_000.5])})
    losses.flush(1)
    found = means(tmp_path, window=range(1, 3), stop=4)
    np.testing.assert_allclose(found[:3], [2.0**20, 1e-5, 60_000.5], rtol=0.05)
    assert np.isnan(found[3])


def test_a_row_costs_few_bytes(tmp_path, monkeypatch):
    write(tmp_path, monkeypatch)
    with np.load(fragments(tmp_path)[0].path) as arrays:
        assert arrays["ids"].itemsize + arrays["losses"].itemsize == 8


def test_ids_beyond_32_bits(tmp_path):
    big = 1 << 33
    losses = OnlineLosses(tmp_path, windows=[range(1, 2)], num_ids=big + 9, resume_step=0)
    losses.add(1, ids=np.array([big + 1, 1]), told={"pair_loss": jnp.asarray([3.0, 5.0])})
    losses.flush(1)
    found = means(tmp_path, window=range(1, 2), start=big, stop=big + 3)
    np.testing.assert_array_equal(found, [np.nan, 3.0, np.nan])


# --- killed ---------------------------------------------------------------------------------------
@pytest.mark.parametrize("killed_at", range(LAST + 1))
def test_killed_after_any_step_the_files_end_the_same(tmp_path, monkeypatch, killed_at):
    every = 4
    write(tmp_path / "never", monkeypatch, every=every)
    killed = Writer(tmp_path / "killed", monkeypatch)
    for step in range(1, killed_at + 1):
        killed.add(step)
        if step % every == 0:
            killed.flush(step)
    checkpoint = killed_at - killed_at % every
    (tmp_path / "killed" / "steps-0000000099-0000000100-of-00000.tmp").write_bytes(b"half")
    again = Writer(tmp_path / "killed", monkeypatch, resume=checkpoint)
    for step in range(checkpoint + 1, LAST + 1):
        again.add(step)
        if step % every == 0:
            again.flush(step)
    contents = [
        {p.name: p.read_bytes() for p in (tmp_path / name).iterdir()}
        for name in ("never", "killed")
    ]
    assert contents[0] == contents[1] and contents[0]


@pytest.mark.parametrize("back_to", [0, 8, 16])
def test_who_goes_on_from_an_earlier_checkpoint_sees_no_step_twice(
    tmp_path, monkeypatch, back_to
):
    write(tmp_path, monkeypatch, every=4, processes=2)
    again = Writer(tmp_path, monkeypatch, resume=back_to)  # on one process now
    assert all(fragment.last <= back_to for fragment in fragments(tmp_path))
    for step in range(back_to + 1, LAST + 1):
        again.add(step)
    again.flush(LAST)
    expected = reference.recent_losses(seen(), WINDOW, N)
    np.testing.assert_allclose(means(tmp_path), expected, rtol=1e-6)


def test_rows_are_written_before_they_fill_the_memory(tmp_path, monkeypatch):
    monkeypatch.setattr(online_losses, "_ROWS", 3 * BATCH)
    losses = Writer(tmp_path, monkeypatch)
    for step in range(1, 12):
        losses.add(step)
    assert [(f.first, f.last) for f in fragments(tmp_path)] == [(5, 7), (8, 10)]


# --- what is kept ---------------------------------------------------------------------------------
def test_only_steps_of_windows_are_kept_and_go_when_no_estimate_can_ask_for_them(
    tmp_path, monkeypatch
):
    windows = [range(3, 7), range(9, 13)]
    losses = Writer(tmp_path, monkeypatch, windows=windows)
    kept = {}
    for step in range(1, LAST + 1):
        losses.add(step)
        if step % 2 == 0:
            losses.flush(step)
            kept[step] = [(f.first, f.last) for f in fragments(tmp_path)]
    first, second = [(3, 4), (5, 6)], [(9, 10), (11, 12)]
    assert kept[2] == [] and kept[4] == first[:1] and kept[6] == first
    # The estimate at step 6 is made again by a run that goes on from there.
    assert kept[8] == first and kept[10] == [*first, *second[:1]]
    assert kept[12] == second and kept[16] == second and kept[18] == []


def test_windows_that_overlap_share_their_losses(tmp_path, monkeypatch):
    windows = [range(1, 9), range(5, 13), range(9, 17)]
    write(tmp_path, monkeypatch, every=2, windows=windows)
    expected = reference.recent_losses(seen(), range(9, 17), N)
    np.testing.assert_allclose(means(tmp_path, window=range(9, 17)), expected, rtol=1e-6)


# --- the column -----------------------------------------------------------------------------------
def column_in(tmp_path, **fields):
    column = ColumnVersion(directory=tmp_path / "pair_loss" / "0001", key="key")
    defaults = {"directory": tmp_path / "online", "window": WINDOW, "before": None}
    made = recent_losses(column, **(defaults | {"members": Ranges(N)} | fields))
    return made, column


@pytest.mark.parametrize("known", [N, N - 5], ids=["all", "before_shards_were_added"])
def test_what_the_window_did_not_see_keeps_its_last_value(tmp_path, monkeypatch, known):
    write(tmp_path / "online", monkeypatch)
    before = np.linspace(50, 60, known, dtype=np.float32)
    before[7] = np.nan
    made, column = column_in(tmp_path, before=before, window=range(18, LAST + 1))
    expected = reference.recent_losses(seen(), range(18, LAST + 1), N, before)
    np.testing.assert_allclose(made, expected, rtol=1e-6)
    of_window = reference.recent_losses(seen(), range(18, LAST + 1), N)
    meta = column.meta()
    assert meta["seen"] == np.isfinite(of_window).sum()
    assert meta["kept"] == (np.isnan(of_window) & np.isfinite(expected)).sum() > 0
    assert meta["unknown"] == np.isnan(expected).sum()
    assert (meta["first"], meta["last"]) == (18, LAST)


def test_examples_that_take_no_part_are_not_counted_as_unknown(tmp_path, monkeypatch, caplog):
    write(tmp_path / "online", monkeypatch)
    caplog.set_level(logging.INFO)
    members = Ranges(N, np.array([[N - 3, N - 1]]))
    _, column = column_in(tmp_path, members=members)
    expected = reference.recent_losses(seen(), WINDOW, N)
    unseen = int(np.isnan(expected).sum())
    assert column.meta()["unknown"] == unseen - 2
    assert f"{unseen - 2} were never seen" in caplog.text and "gone" not in caplog.text


def test_a_finished_column_is_read_and_a_lost_step_is_told(tmp_path, monkeypatch, caplog):
    write(tmp_path / "online", monkeypatch, every=5)
    fragments(tmp_path / "online")[1].path.unlink()
    made, _ = column_in(tmp_path)
    assert "5 of these 16 steps are gone" in caplog.text
    expected = reference.recent_losses(seen(5, *range(11, LAST + 1)), WINDOW, N)
    np.testing.assert_allclose(made, expected, rtol=1e-6)
    for fragment in fragments(tmp_path / "online"):
        fragment.path.unlink()
    again, _ = column_in(tmp_path)
    np.testing.assert_array_equal(again, made)
