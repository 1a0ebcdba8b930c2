"""Checkpoints: what is saved is what was there, whatever happens to the arrays meanwhile."""

import json

import jax
import numpy as np
import pytest
from jax.sharding import NamedSharding, PartitionSpec
from tiny import abstract, mesh_of

from nlip_jax import sharding
from nlip_jax.checkpoint import Checkpointer, restore_part, saved_steps
from nlip_jax.errors import RunError


def make_state(mesh, *, rows: int = 512):
    """Every kind of leaf: split, replicated, scalar, integers, an empty dict."""
    split = NamedSharding(mesh, PartitionSpec("fsdp"))
    everywhere = sharding.replicated(mesh)
    return {
        "step": jax.device_put(np.int32(0), everywhere),
        "params": {
            "w": jax.device_put(np.arange(rows * 256, dtype=np.float32).reshape(rows, 256), split),
            "b": jax.device_put(np.arange(8, dtype=np.float32), everywhere),
        },
        "model_state": {},
    }


@pytest.fixture
def open_checkpoints(tmp_path):
    opened = []

    def make(**options) -> Checkpointer:
        opened.append(Checkpointer(tmp_path / "checkpoints", **options))
        return opened[-1]

    yield make
    for checkpointer in opened:
        checkpointer.close()


def assert_state(state, expected):
    jax.tree.map(lambda a, b: np.testing.assert_array_equal(np.asarray(a), b), state, expected)


@pytest.mark.parametrize("fsdp", [1, 8])
def test_arrays_may_be_donated_while_they_are_saved(open_checkpoints, fsdp):
    """The save is in the background; the training goes on and writes over the same memory."""
    state = make_state(mesh_of(8, fsdp=fsdp))
    wanted, structure = {}, abstract(state)
    advance = jax.jit(lambda s: jax.tree.map(lambda a: a + 1, s), donate_argnums=0)
    checkpointer = open_checkpoints(keep=10)
    for step in range(1, 4):
        state = advance(state)
        wanted[step] = jax.tree.map(lambda a: np.array(a, copy=True), state)
        checkpointer.save(step, state=state, meta={"position": step})
        for _ in range(5):
            state = advance(state)
    checkpointer.wait()
    for step, expected in wanted.items():
        restored = checkpointer.restore(step, abstract=structure)
        assert restored.meta == {"position": step}
        assert_state(restored.state, expected)


def test_only_the_newest_are_kept(open_checkpoints):
    checkpointer = open_checkpoints(keep=2)
    assert checkpointer.latest_step() is None
    state = make_state(mesh_of(1), rows=2)
    for step in (3, 5, 8):
        checkpointer.save(step, state=state, meta={})
    checkpointer.wait()
    assert checkpointer.latest_step() == 8
    folders = {p.name for p in checkpointer.directory.iterdir() if p.is_dir()}
    assert folders == {"5", "8"}


def test_the_newest_before_some_steps_are_kept_as_well(open_checkpoints):
    """Also those that another process, which was killed, left there."""
    state = make_state(mesh_of(1), rows=2)
    for steps, before, kept in (
        ((3, 5, 8, 10), (), {"8", "10"}),
        ((12, 15, 20), (9, 12), {"8", "10", "15", "20"}),  # 12 itself is too late for step 12
        ((25,), (12, 2), {"10", "20", "25"}),
    ):
        checkpointer = open_checkpoints(keep=2)
        checkpointer.keep_before(before)
        for step in steps:
            checkpointer.save(step, state=state, meta={})
        checkpointer.wait()
        folders = {p.name for p in checkpointer.directory.iterdir() if p.is_dir()}
        assert folders == kept


def test_the_newest_checkpoint_before_a_step(open_checkpoints):
    checkpointer = open_checkpoints(keep=5)
    for step in (3, 5, 8):
        checkpointer.save(step, state=make_state(mesh_of(1), rows=2), meta={})
    checkpointer.wait()
    found = [checkpointer.latest_step(before=step) for step in (1, 3, 4, 5, 6, 8, 9, 100)]
    assert found == [None, None, 3, 3, 5, 5, 8, 8]


def test_who_only_reads_leaves_unfinished_checkpoints_alone(open_checkpoints):
    """They may be those of a run that is going on."""
    writer = open_checkpoints()
    state = make_state(mesh_of(1), rows=2)
    writer.save(4, state=state, meta={})
    writer.wait()
    half = writer.directory / "6.orbax-checkpoint-tmp-1" / "state"
    half.mkdir(parents=True)
    reader = open_checkpoints(only_reads=True)
    assert reader.latest_step() == 4 and half.is_dir()
    assert_state(reader.restore(4, abstract=abstract(state)).state, jax.tree.map(np.asarray, state))


def test_a_step_is_saved_once(open_checkpoints):
    """A run that is stopped where it has just saved keeps what it saved."""
    checkpointer = open_checkpoints()
    state = make_state(mesh_of(1), rows=2)
    checkpointer.save(4, state=state, meta={"first": True})
    checkpointer.wait()
    checkpointer.save(4, state=state, meta={"first": False})
    checkpointer.wait()
    assert checkpointer.restore(4, abstract=abstract(state)).meta == {"first": True}


def test_a_checkpoint_opens_on_any_mesh(open_checkpoints):
    state = make_state(mesh_of(8, fsdp=8))
    expected = jax.tree.map(np.asarray, state)
    writer = open_checkpoints()
    writer.save(1, state=state, meta={})
    writer.close()
    for mesh in (mesh_of(8, fsdp=4), mesh_of(8), mesh_of(1), mesh_of(2, fsdp=2)):
        wanted = abstract(make_state(mesh))
        restored = open_checkpoints().restore(1, abstract=wanted).state
        assert_state(restored, expected)
        jax.tree.map(_same_place, restored, wanted)


def _same_place(array: jax.Array, wanted: jax.ShapeDtypeStruct):
    assert array.sharding == wanted.sharding and array.dtype == wanted.dtype


def test_what_a_kill_leaves_behind_is_no_checkpoint(open_checkpoints):
    checkpointer = open_checkpoints()
    state = make_state(mesh_of(1), rows=2)
    checkpointer.save(4, state=state, meta={})
    checkpointer.wait()
    half = checkpointer.directory / "6.orbax-checkpoint-tmp-1"
    (half / "state").mkdir(parents=True)
    (half / "state" / "half").write_bytes(b"x")
    assert open_checkpoints().latest_step() == 4


@pytest.mark.parametrize("damage", ["arrays", "truncated", "metadata", "meta"])
def test_a_damaged_checkpoint_says_what_to_do(open_checkpoints, damage):
    checkpointer = open_checkpoints()
    state = make_state(mesh_of(1))
    checkpointer.save(4, state=state, meta={"position": 4})
    checkpointer.wait()
    folder = checkpointer.directory / "4"
    data = [p for p in (folder / "state").rglob("*") if p.is_file() and "/d/" in str(p)]
    assert data
    if damage == "arrays":
        for path in data:
            path.unlink()
    elif damage == "truncated":
        for path in data:
            path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    elif damage == "metadata":
        for path in (folder / "state").glob("_*"):
            path.write_text("{")
    else:
        for path in (folder / "meta").glob("meta*"):
            path.write_text('{"position"')
    remedy = r"checkpoint 4 .*remove the folder .*checkpoints/4"
    with pytest.raises(RunError, match=remedy) as error:
        open_checkpoints().restore(4, abstract=abstract(state))
    assert "\n" not in str(error.value)


def test_another_structure_is_refused(open_checkpoints):
    checkpointer = open_checkpoints()
    state = make_state(mesh_of(1), rows=2)
    checkpointer.save(4, state=state, meta={})
    checkpointer.wait()
    for other in (
        state | {"params": {"w": state["params"]["w"]}},
        state | {"params": state["params"] | {"more": state["step"]}},
        state | {"params": state["params"] | {"w": make_state(mesh_of(1), rows=4)["params"]["w"]}},
    ):
        with pytest.raises(RunError, match=r"checkpoint 4 .*cannot be restored"):
            checkpointer.restore(4, abstract=abstract(other))


def test_meta_is_readable_without_anything(open_checkpoints):
    checkpointer = open_checkpoints()
    checkpointer.save(4, state=make_state(mesh_of(1), rows=2), meta={"seed": 3, "config": {"a": 1}})
    checkpointer.wait()
    written = next((checkpointer.directory / "4" / "meta").glob("meta*"))
    assert json.loads(written.read_text()) == {"seed": 3, "config": {"a": 1}}


# --- a part of a state --------------------------------------------------------------------------


@pytest.fixture
def saved(open_checkpoints):
    """A checkpoint with statistics and moments: (folder, what was saved)."""
    state = make_state(mesh_of(8, fsdp=8))
    state["model_state"] = {"batch_stats": {"mean": state["params"]["b"] + 1}}
    state["opt_state"] = {"moment": jax.tree.map(lambda a: a + 2, state["params"])}
    checkpointer = open_checkpoints()
    checkpointer.save(4, state=state, meta={"position": 4})
    checkpointer.wait()
    return checkpointer.directory, state


def part_of(state, mesh, *names):
    """Shapes of some fields, split over the mesh where a vector divides."""

    def shape(leaf):
        spec = PartitionSpec("fsdp") if leaf.ndim else PartitionSpec()
        return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=NamedSharding(mesh, spec))

    return jax.tree.map(shape, {name: state[name] for name in names})


@pytest.mark.parametrize(("devices", "fsdp"), [(8, 8), (8, 4), (2, 1), (1, 1)])
def test_a_part_opens_on_any_mesh_without_the_rest(saved, devices, fsdp):
    folder, state = saved
    wanted = part_of(state, mesh_of(devices, fsdp=fsdp), "params", "model_state")
    assert saved_steps(folder) == [4]
    restored = restore_part(folder, 4, abstract=wanted)
    assert restored.keys() == {"params", "model_state"}
    assert_state(restored, {name: jax.tree.map(np.asarray, state[name]) for name in restored})
    jax.tree.map(_same_place, restored, wanted)


def test_only_the_part_is_read(saved, monkeypatch):
    """What is asked of the storage are the arrays of the part: the optimizer state may be huge."""
    from orbax.checkpoint import type_handlers

    folder, state = saved
    asked = []
    handler = type_handlers.ArrayHandler.deserialize

    async def deserialize(self, infos, args=None):
        asked.extend(info.name for info in infos)
        return await handler(self, infos, args)

    monkeypatch.setattr(type_handlers.ArrayHandler, "deserialize", deserialize)
    restore_part(folder, 4, abstract=part_of(state, mesh_of(1), "params"))
    assert sorted(asked) == ["params.b", "params.w"]


def test_a_part_without_arrays_is_empty(saved, open_checkpoints):
    folder, _ = saved
    plain = make_state(mesh_of(1), rows=2)
    checkpointer = open_checkpoints()
    checkpointer.save(8, state=plain, meta={})
    checkpointer.wait()
    wanted = part_of(plain, mesh_of(1), "params", "model_state")
    assert restore_part(folder, 8, abstract=wanted)["model_state"] == {}


def test_a_part_that_is_not_there(saved):
    folder, state = saved
    wanted = part_of(state, mesh_of(1), "params")
    for step, changes, reason in (
        (5, {}, "not found"),
        (4, {"ema_params": wanted["params"]}, "it has no ema_params/b"),
        (4, {"params": {"v": wanted["params"]["b"]}}, "it has no params/v"),
    ):
        with pytest.raises(RunError, match=rf"checkpoint {step} .*{reason}") as error:
            restore_part(folder, step, abstract=wanted | changes)
        assert "\n" not in str(error.value)


def test_what_vanishes_while_it_is_read(saved):
    """The arrays are gone, and their description is still there."""
    folder, state = saved
    for path in (folder / "4" / "state").rglob("*"):
        if path.is_file() and "/d/" in str(path):
            path.unlink()
    with pytest.raises(RunError, match=r"checkpoint 4 .*cannot be restored"):
        restore_part(folder, 4, abstract=part_of(state, mesh_of(1), "params"))


def test_steps_of_complete_checkpoints(tmp_path):
    assert saved_steps(tmp_path / "none") == []
    for name in ("12", "4", "6.orbax-checkpoint-tmp-1", "tmp"):
        (tmp_path / name).mkdir()
    assert saved_steps(tmp_path) == [4, 12]
