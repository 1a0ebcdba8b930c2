"""A function over all examples: every id once, resumable bit for bit, the same on every mesh."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny
from jax.sharding import NamedSharding, PartitionSpec
from tiny import LoadRow, mesh_of

from nlip_jax import phases, sharding
from nlip_jax.columns import ColumnVersion
from nlip_jax.data.failures import ReadError
from nlip_jax.data.members import Ranges
from nlip_jax.data.pipeline import Reading
from nlip_jax.errors import Preempted
from nlip_jax.estimators import gaussian_mixture
from nlip_jax.train import map_examples, stop
from nlip_jax.train.map_examples import Mapper


class LoadNumber:
    def __call__(self, example_id: int, epoch: int) -> dict[str, np.ndarray]:
        return {"x": np.array([example_id, epoch], np.float32)}


def mapper(devices: int = 8, **fields) -> Mapper:
    return Mapper(mesh=mesh_of(devices, **fields), reading=Reading(threads=0))


def identity(params, batch):
    return batch["x"][:, 0] * params


def among_its_batch(params, batch):
    """Depends on which examples share a batch, as a contrastive loss does."""
    return batch["x"][:, 0] - jnp.mean(jnp.sin(batch["x"])) * params


ONE = np.float32(1)
SIZES = {"members": Ranges(83), "batch_size": 8}  # 11 batches, the last with 3 real rows


def column_of(tmp_path, name: str = "column") -> ColumnVersion:
    return ColumnVersion(directory=tmp_path / "columns" / name / "0001", key="key")


def to_column(column: ColumnVersion, *, function=among_its_batch, load=None, **fields):
    return mapper().map_to_column(
        function,
        ONE,
        load=load or LoadNumber(),
        column=column,
        seed=fields.pop("seed", 5),
        **(SIZES | fields),
    )


# --- in memory ------------------------------------------------------------------------------------


@pytest.mark.parametrize("n", [1, 8, 20])
def test_collected_results_stand_in_the_order_of_ids(n):
    def two(params, batch):
        return {"id": batch["x"][:, 0], "rows": batch["x"][:, None] * params}

    found = mapper().collect(two, ONE, load=LoadNumber(), num_examples=n, batch_size=8)
    assert not found.is_missing.any() and len(found.is_missing) == n
    results = found.values
    np.testing.assert_array_equal(results["id"], np.arange(n))
    assert results["rows"].shape == (n, 1, 2)
    assert not results["rows"][:, 0, 1].any()  # passes read epoch 0


@pytest.mark.parametrize("fsdp", [1, 4, 8])
def test_split_parameters_do_not_split_the_results(fsdp):
    """XLA would hand out products with split matrices in columns."""
    made = mapper(fsdp=fsdp)
    place = NamedSharding(made.mesh, PartitionSpec(None, "fsdp"))
    params = jax.device_put(np.arange(32, dtype=np.float32).reshape(2, 16), place)

    def product(params, batch):
        return batch["x"] @ params

    result = made.collect(product, params, load=LoadNumber(), num_examples=20, batch_size=8)
    np.testing.assert_array_equal(result.values, np.arange(20)[:, None] * np.arange(16.0))


# --- on disk --------------------------------------------------------------------------------------


@pytest.mark.parametrize("n", [1, 7, 8, 9, 83])
def test_every_id_gets_its_value(tmp_path, n):
    values = to_column(column_of(tmp_path), function=identity, members=Ranges(n))
    np.testing.assert_array_equal(values, np.arange(n))


def test_batches_are_real_rows_in_a_seeded_random_order(tmp_path):
    seen = []

    class Recorded(LoadNumber):
        def __call__(self, example_id, epoch):
            seen.append((example_id, epoch))
            return super().__call__(example_id, epoch)

    to_column(column_of(tmp_path, "a"), load=Recorded())
    first, seen = seen, []
    ids, epochs = np.array(first).T
    assert len(ids) == 88 and not epochs.any()
    np.testing.assert_array_equal(np.sort(ids[:83]), np.arange(83))
    np.testing.assert_array_equal(ids[83:], ids[:5])  # real rows fill up the last batch
    assert np.abs(np.diff(ids)).mean() > 15  # neighbours on disk are apart: 28 by chance
    to_column(column_of(tmp_path, "b"), load=Recorded())
    assert seen == first
    seen = []
    to_column(column_of(tmp_path, "c"), load=Recorded(), seed=6)
    assert seen != first


class Killed(BaseException):
    """Nothing catches it, so what lies on disk is what a kill would leave."""


@pytest.mark.parametrize("fragments", [1, 3, 6])
def test_a_killed_pass_goes_on_and_ends_bit_for_bit_the_same(tmp_path, fragments, monkeypatch):
    """11 batches make 6 fragments of two batches; after the sixth only the merge is left."""
    monkeypatch.setattr(map_examples, "_FRAGMENTS", 6)
    whole = np.array(to_column(column_of(tmp_path, "whole")))
    written, read = [], []

    def enter(name, **details):
        if name == "fragment" and (written.append(details) or len(written) == fragments):
            raise Killed

    class Recorded(LoadNumber):
        def __call__(self, example_id, epoch):
            read.append(example_id)
            return super().__call__(example_id, epoch)

    column = column_of(tmp_path, "killed")
    with monkeypatch.context() as patch:
        patch.setattr(phases, "enter", enter)
        with pytest.raises(Killed):
            to_column(column)
    assert column.num_own_fragments() == fragments and not column.is_done
    values = to_column(column, load=Recorded())
    np.testing.assert_array_equal(values, whole)
    assert len(read) == max(0, 88 - fragments * 16)  # none of the finished work is done again


def test_a_pass_killed_again_and_again(tmp_path, monkeypatch):
    whole = np.array(to_column(column_of(tmp_path, "whole")))
    column = column_of(tmp_path, "killed")

    class Limited(LoadNumber):
        def __init__(self):
            self.left = 30

        def __call__(self, example_id, epoch):
            self.left -= 1
            if self.left < 0:
                raise Killed
            return super().__call__(example_id, epoch)

    for _ in range(10):
        try:
            to_column(column, load=Limited())
        except Killed:
            continue
        break
    assert column.is_done
    np.testing.assert_array_equal(column.read(), whole)


def test_another_key_starts_anew(tmp_path):
    first = column_of(tmp_path)
    first.prepare()
    first.append(0, ids=np.arange(8), values=np.full(8, -1, np.float32))
    second = ColumnVersion(directory=first.directory, key="other parameters")
    np.testing.assert_array_equal(to_column(second, function=identity), np.arange(83))


def test_a_finished_column_is_only_read(tmp_path):
    column = column_of(tmp_path)
    first = np.array(to_column(column))

    def never(params, batch):
        raise AssertionError("computed again")

    np.testing.assert_array_equal(to_column(column, function=never), first)


def test_a_run_that_is_asked_to_stop_leaves_its_fragments(tmp_path, monkeypatch):
    whole = np.array(to_column(column_of(tmp_path, "whole")))
    column = column_of(tmp_path, "stopped")
    answers = iter([False] * 5)
    with monkeypatch.context() as patch:
        patch.setattr(stop, "requested", lambda step=None: next(answers, True))
        with pytest.raises(Preempted):
            to_column(column)
    assert 0 < column.num_own_fragments() < 11
    np.testing.assert_array_equal(to_column(column), whole)


# --- compiled once --------------------------------------------------------------------------------


def test_the_same_function_is_compiled_once(tmp_path):
    traces = []

    class Model:
        def loss(self, params, batch):
            traces.append(1)
            return batch["x"][:, 0] * params

    model, other = Model(), Model()
    for name in ("first", "second"):
        to_column(column_of(tmp_path, name), function=model.loss)
    assert len(traces) == 1
    to_column(column_of(tmp_path, "third"), function=other.loss)
    assert len(traces) == 2


# --- meshes ---------------------------------------------------------------------------------------


def test_pair_losses_and_noise_probabilities_are_the_same_on_every_mesh(tmp_path):
    method = tiny.nlip()
    params, _ = method.init_model(jax.random.key(0), tiny.rows([0]))
    losses, noise_prob = [], []
    for devices in (1, 8):
        made = mapper(devices)
        placed = jax.device_put(params, sharding.replicated(made.mesh))
        state = tiny.state_of(method, placed)
        found = made.map_to_column(
            method.plain_pair_loss,
            state,
            load=LoadRow(),
            members=Ranges(150),
            batch_size=16,
            seed=0,
            column=column_of(tmp_path, f"on_{devices}"),
        )
        losses.append(np.array(found))
        fit = functools.partial(gaussian_mixture.fit, num_bins=1024, mesh=made.mesh)
        mixture = fit(losses[-1]).mixture
        noise_prob.append(gaussian_mixture.posterior(mixture, losses[-1], mesh=made.mesh))
    assert losses[0].std() > 0.1 and 0.1 < noise_prob[0].mean() < 0.9
    np.testing.assert_allclose(losses[1], losses[0], rtol=1e-5)
    np.testing.assert_allclose(noise_prob[1], noise_prob[0], atol=1e-4)


# --- examples that cannot be read, and those that take no part ------------------------------------


class LoadSome(LoadNumber):
    """Every fifth example is broken."""

    def __call__(self, example_id, epoch):
        if example_id % 5 == 2:
            raise ReadError("damaged_image", f"example {example_id}")
        return super().__call__(example_id, epoch)


def test_what_cannot_be_read_has_no_value_and_the_others_have_theirs(tmp_path):
    failed = []
    values = to_column(
        column_of(tmp_path),
        function=identity,
        load=LoadSome(),
        on_rows=lambda rows: failed.extend(rows.due[rows.is_replaced & rows.valid]),
    )
    ids = np.arange(83)
    np.testing.assert_array_equal(np.isnan(values), ids % 5 == 2)
    np.testing.assert_array_equal(values[ids % 5 != 2], ids[ids % 5 != 2])
    assert sorted(failed) == list(range(2, 83, 5))


def test_examples_that_take_no_part_are_not_looked_at(tmp_path):
    seen = []

    class Recorded(LoadNumber):
        def __call__(self, example_id, epoch):
            seen.append(example_id)
            return super().__call__(example_id, epoch)

    members = Ranges(83, np.array([[10, 40], [80, 83]]))
    values = to_column(
        column_of(tmp_path), function=identity, load=Recorded(), members=members
    )
    there = np.ones(83, bool)
    there[10:40] = there[80:] = False
    np.testing.assert_array_equal(np.isnan(values), ~there)
    assert set(seen) == set(np.flatnonzero(there))


def test_collected_results_say_what_could_not_be_read(caplog):
    found = mapper().collect(identity, ONE, load=LoadSome(), num_examples=20, batch_size=8)
    np.testing.assert_array_equal(found.is_missing, np.arange(20) % 5 == 2)
    np.testing.assert_array_equal(np.isnan(found.values), found.is_missing)
    assert "4 of 20 images or texts" in caplog.text and "4 x damaged_image" in caplog.text
