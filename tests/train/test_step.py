"""The compiled step: the arithmetic by hand, and the same numbers on every mesh."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import tiny
from tiny import Regression, abstract, abstract_batch, mesh_of, rows

from nlip_jax import sharding
from nlip_jax.placement import Placement
from nlip_jax.train.optimizer import make_optimizer
from nlip_jax.train.state import StateFactory, fingerprint
from nlip_jax.train.step import compile_step, train_step
from nlip_jax.types import LossOutput

BATCH = 16


def make_step(method, mesh, *, tx, schedule, batch_size=BATCH):
    """(state at step 0, compiled step)."""
    columns = {name: jax.ShapeDtypeStruct((batch_size,), np.float32) for name in method.columns}
    batch = abstract_batch(batch_size, **columns)
    factory = StateFactory(
        method=method, tx=tx, placement=Placement(mesh=mesh), batch=batch, seed=0
    )
    step = functools.partial(train_step, method=method, tx=tx, schedule=schedule, seed=0)
    compiled = compile_step(step, state=factory.abstract(), batch=batch, mesh=mesh)
    return factory, compiled


def regression_batch(number: int) -> dict[str, np.ndarray]:
    ids = np.arange(BATCH) + BATCH * number
    return {**rows(ids), "offset": np.linspace(-1, 1, BATCH).astype(np.float32)}


# --- by hand --------------------------------------------------------------------------------------


def test_the_step_is_what_the_formulas_say():
    """AdamW with decay and clipping in float64 NumPy (Loshchilov & Hutter, 2019)."""
    decay, bound, b1, b2, eps = 0.1, 0.5, 0.9, 0.98, 1e-6
    rate = optax.linear_schedule(0.1, 0.4, 3)
    tx = make_optimizer(
        name="adamw",
        schedule=rate,
        weight_decay=decay,
        clip_norm=bound,
        b1=b1,
        b2=b2,
        eps=eps,
        no_decay=("bias",),
    )
    mesh = mesh_of(1)
    factory, step = make_step(Regression(), mesh, tx=tx, schedule=rate)
    state = factory.create()
    theta = np.array([*state.params["w"], state.params["bias"]], np.float64)
    mean, square = np.zeros(4), np.zeros(4)
    for t in range(1, 5):
        batch = regression_batch(t)
        state, metrics = step(state, sharding.to_devices(batch, mesh))

        x = np.c_[batch["image"].astype(np.float64).mean((1, 2)) / 255, np.ones(BATCH)]
        wanted = batch["tokens"].sum(-1) / 50 + batch["offset"].astype(np.float64)
        error = x @ theta - wanted
        gradient = 2 * x.T @ error / BATCH
        norm = np.linalg.norm(gradient)
        clipped = gradient * min(1.0, bound / norm)
        mean = b1 * mean + (1 - b1) * clipped
        square = b2 * square + (1 - b2) * clipped**2
        direction = (mean / (1 - b1**t)) / (np.sqrt(square / (1 - b2**t)) + eps)
        theta = theta - float(rate(t - 1)) * (direction + decay * theta * [1, 1, 1, 0])

        np.testing.assert_allclose(metrics["loss"], (error**2).mean(), rtol=1e-5)
        np.testing.assert_allclose(metrics["grad_norm"], norm, rtol=1e-5)  # before clipping
        np.testing.assert_allclose(metrics["learning_rate"], rate(t - 1), rtol=1e-6)
        np.testing.assert_allclose(state.params["w"], theta[:3], rtol=1e-5)
        np.testing.assert_allclose(state.params["bias"], theta[3], rtol=1e-5)
        assert int(state.step) == t and int(state.episode) == 0
        assert int(state.method_state["updates"]) == t


def test_terms_of_the_loss_add_up():
    """`example_loss` sees what `pair_loss` picked, as a constant, and its gradient counts."""

    class TwoTerms(Regression):
        def pair_loss(self, params, features, state, batch):
            first = super().pair_loss(params, features, state, batch)
            return first.replace(metrics={"first": first.loss}, picks=features["y"])

        def example_loss(self, params, features, picks, state, batch, *, rng):
            second = 3.0 * jnp.mean(picks * features["y"])
            return LossOutput(loss=second, metrics={"second": second})

    mesh, schedule = mesh_of(1), optax.constant_schedule(0.1)
    tx = optax.sgd(schedule)
    factory, step = make_step(TwoTerms(), mesh, tx=tx, schedule=schedule)
    state = factory.create()
    before = jax.tree.map(np.asarray, state.params)
    batch = regression_batch(0)
    after, metrics = step(state, sharding.to_devices(batch, mesh))
    np.testing.assert_allclose(metrics["loss"], metrics["first"] + metrics["second"], rtol=1e-6)

    def by_hand(params):
        y = batch["image"].astype(np.float32).mean((1, 2)) / 255 @ params["w"] + params["bias"]
        wanted = batch["tokens"].sum(-1) / 50 + batch["offset"]
        # 1.5 y ** 2 has the gradient of 3 y times the constant that y was when it was picked.
        return jnp.mean((y - wanted) ** 2) + 1.5 * jnp.mean(y**2)

    grads = jax.grad(by_hand)(before)
    expected = jax.tree.map(lambda p, g: p - 0.1 * g, before, grads)
    jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=1e-5), after.params, expected)


def test_random_numbers_are_new_at_every_step_and_the_same_on_resume():
    class Noisy(Regression):
        def embed(self, params, state, batch, *, rng):
            embedded = super().embed(params, state, batch, rng=rng)
            noise = jax.random.normal(rng, embedded.features["y"].shape)
            return embedded.replace(features={"y": embedded.features["y"] * 0 + noise})

    mesh, schedule = mesh_of(8), optax.constant_schedule(0.0)
    factory, step = make_step(Noisy(), mesh, tx=optax.sgd(0.0), schedule=schedule)
    batch = sharding.to_devices(regression_batch(0), mesh)

    def losses(state, count):
        found = []
        for _ in range(count):
            state, metrics = step(state, batch)
            found.append(float(metrics["loss"]))
        return found

    first = losses(factory.create(), 4)
    assert len(set(first)) == 4
    resumed = factory.create()
    resumed = resumed.replace(step=jax.device_put(np.int32(2), resumed.step.sharding))
    assert losses(resumed, 2) == first[2:]


# --- one compile ----------------------------------------------------------------------------------


def test_the_step_takes_one_type_and_gives_it_back():
    mesh, schedule = mesh_of(8, fsdp=4), optax.constant_schedule(0.1)
    tx = make_optimizer(name="adamw", schedule=schedule)
    factory, step = make_step(Regression(), mesh, tx=tx, schedule=schedule)
    state = factory.create()
    assert abstract(state) == factory.abstract()
    batch = sharding.to_devices(regression_batch(0), mesh)
    with jax.transfer_guard("disallow"):
        after, _ = step(state, batch)
    assert abstract(after) == factory.abstract()
    assert state.params["w"].is_deleted()  # its memory went to `after`
    with pytest.raises(TypeError):
        step(after, batch | {"offset": batch["offset"].astype(jnp.bfloat16)})
    with pytest.raises(ValueError, match="sharding"):
        step(after, batch | {"offset": jax.device_put(batch["offset"], jax.devices()[0])})


def test_parameters_do_not_depend_on_mesh_or_batch():
    tx = make_optimizer(name="adamw", schedule=optax.constant_schedule(0.1))
    prints = set()
    for mesh, batch_size in ((mesh_of(1), 8), (mesh_of(8, fsdp=4), 16)):
        factory = StateFactory(
            method=tiny.clip(),
            tx=tx,
            placement=Placement(mesh=mesh),
            batch=abstract_batch(batch_size),
            seed=3,
        )
        prints.add(fingerprint(factory.create().params))
    assert len(prints) == 1


def test_a_fingerprint_sees_every_bit():
    params = {"a": np.zeros((4, 8), np.float32), "b": np.zeros(8, np.float32)}
    changed = [params]
    for name, place in (("a", (0, 0)), ("a", (3, 7)), ("b", (0,)), ("b", (7,))):
        other = {key: value.copy() for key, value in params.items()}
        other[name][place] = np.float32(1e-45)  # one bit
        changed.append(other)
    changed.append({"a": params["a"], "b": -params["b"]})
    assert len({fingerprint(some) for some in changed}) == len(changed)
    swapped = np.array([1.0, 2.0], np.float32)
    assert fingerprint({"a": swapped}) != fingerprint({"a": swapped[::-1].copy()})
    mesh = mesh_of(8, fsdp=8)
    shapes = jax.eval_shape(lambda: params)
    place = Placement(mesh=mesh).shardings(shapes, params=shapes)
    assert fingerprint(jax.device_put(changed[1], place)) == fingerprint(changed[1])


# --- meshes ---------------------------------------------------------------------------------------


def losses_on(mesh, method, *, steps: int) -> np.ndarray:
    schedule = optax.constant_schedule(3e-3)
    tx = make_optimizer(name="adamw", schedule=schedule, clip_norm=1.0)
    factory, step = make_step(method, mesh, tx=tx, schedule=schedule)
    state = factory.create()
    found = []
    for number in range(steps):
        batch = rows((np.arange(BATCH) + BATCH * number) % 200)
        batch |= {name: np.linspace(0, 1, BATCH, dtype=np.float32) for name in method.columns}
        state, metrics = step(state, sharding.to_devices(batch, mesh))
        found.append(float(metrics["loss"]))
    return np.array(found)


def test_losses_are_the_same_on_every_mesh():
    """Float32 and the order of its sums are all that differs."""
    method = tiny.nlip()
    one = losses_on(mesh_of(1), method, steps=20)
    assert one[-1] < one[0]
    np.testing.assert_allclose(losses_on(mesh_of(8), method, steps=20), one, rtol=1e-5)
    split = losses_on(mesh_of(8, fsdp=4), method, steps=20)
    np.testing.assert_allclose(split, one, rtol=1e-5)


@pytest.mark.slow
def test_losses_of_the_real_towers_are_the_same_over_300_steps():
    method = tiny.nlip(model=tiny.dual_encoder())
    one = losses_on(mesh_of(1), method, steps=300)
    np.testing.assert_allclose(losses_on(mesh_of(8), method, steps=300), one, rtol=1e-5)
    split = losses_on(mesh_of(8, fsdp=4), method, steps=300)
    np.testing.assert_allclose(split, one, rtol=1e-5)
