"""The moving average: by hand, where it lives, and across a restart."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
from tiny import Regression, abstract, abstract_batch, mesh_of, rows

from nlip_jax import sharding
from nlip_jax.checkpoint import Checkpointer
from nlip_jax.placement import Placement
from nlip_jax.train import ema
from nlip_jax.train.state import StateFactory
from nlip_jax.train.step import compile_step, train_step

BATCH, DECAY = 16, 0.15


def make(mesh, *, keep=True):
    """(factory, compiled step) of a regression."""
    method, schedule = Regression(), optax.constant_schedule(0.3)
    tx = optax.adam(schedule)
    batch = abstract_batch(BATCH, offset=jax.ShapeDtypeStruct((BATCH,), np.float32))
    placement = Placement(mesh=mesh)
    factory = StateFactory(
        method=method, tx=tx, placement=placement, batch=batch, seed=0, ema=keep
    )
    step = functools.partial(
        train_step, method=method, tx=tx, schedule=schedule, seed=0, ema_decay=DECAY
    )
    return factory, compile_step(step, state=factory.abstract(), batch=batch, mesh=mesh)


def batch_on(mesh, number):
    ids = np.arange(BATCH) + BATCH * number
    offset = np.linspace(-1, 1, BATCH, dtype=np.float32)
    return sharding.to_devices({**rows(ids), "offset": offset}, mesh)


def test_the_average_is_what_the_formula_says():
    mesh = mesh_of(8)
    factory, step = make(mesh)
    state = factory.create()
    average = np.asarray(state.params["w"], np.float64)
    np.testing.assert_array_equal(state.ema_params["w"], state.params["w"])
    for number, decay in enumerate((1 / 10, DECAY, DECAY, DECAY)):  # 2 / 11 > DECAY
        state, _ = step(state, batch_on(mesh, number))
        average = decay * average + (1 - decay) * np.asarray(state.params["w"], np.float64)
        np.testing.assert_allclose(state.ema_params["w"], average, rtol=1e-5)
    assert (np.asarray(state.ema_params["w"]) != np.asarray(state.params["w"])).all()
    assert ema.with_average(state).params is state.ema_params


def test_the_average_lives_beside_the_parameters_and_takes_over_its_memory():
    class Wide(Regression):
        def init_model(self, rng, batch):
            params, model_state = super().init_model(rng, batch)
            return params | {"unused": jnp.ones((16, 8))}, model_state

    mesh = mesh_of(8, fsdp=4)
    schedule = optax.constant_schedule(0.3)
    batch = abstract_batch(BATCH, offset=jax.ShapeDtypeStruct((BATCH,), np.float32))
    factory = StateFactory(
        method=Wide(),
        tx=optax.sgd(schedule),
        placement=Placement(mesh=mesh),
        batch=batch,
        seed=0,
        ema=True,
    )
    step = functools.partial(
        train_step, method=Wide(), tx=optax.sgd(schedule), schedule=schedule, seed=0, ema_decay=0.9
    )
    compiled = compile_step(step, state=factory.abstract(), batch=batch, mesh=mesh)
    state = factory.create()
    assert abstract(state.ema_params) == abstract(state.params)
    assert "fsdp" in str(state.ema_params["unused"].sharding.spec)
    assert all(leaf.dtype == jnp.float32 for leaf in jax.tree.leaves(state.ema_params))
    after, _ = compiled(state, batch_on(mesh, 0))
    assert abstract(after) == factory.abstract()
    assert state.ema_params["unused"].is_deleted()
    np.testing.assert_array_equal(after.ema_params["unused"], 1)  # it stood still


def test_a_restart_changes_no_bit_of_the_average(tmp_path):
    mesh = mesh_of(8)
    factory, step = make(mesh)

    def train(state, first, last):
        for number in range(first, last):
            state, _ = step(state, batch_on(mesh, number))
        return state

    checkpointer = Checkpointer(tmp_path)
    half = train(factory.create(), 0, 3)
    checkpointer.save(3, state=half, meta={})
    checkpointer.wait()
    whole = train(half, 3, 6)
    restored = checkpointer.restore(3, abstract=factory.abstract()).state
    checkpointer.close()
    jax.tree.map(np.testing.assert_array_equal, train(restored, 3, 6), whole)


def test_without_an_average_the_parameters_are_used():
    factory, step = make(mesh_of(1), keep=False)
    state, _ = step(factory.create(), batch_on(mesh_of(1), 0))
    assert state.ema_params is None
    assert ema.with_average(state) is state


def test_a_slow_average_moves_as_slowly_as_it_should():
    zero, one = jnp.zeros(()), jnp.ones(())
    moved = ema.update(zero, one, num_updates=jnp.int32(2**30), decay=0.999999)
    np.testing.assert_allclose(moved, 1e-6, rtol=1e-6)
