"""Optimizers: what decays, what is clipped, and that they go down."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import tiny

from configs import base
from nlip_jax.errors import UsageError
from nlip_jax.train.optimizer import decay_mask, make_optimizer

NO_DECAY = ("bias", "scale", "log_scale")
CONSTANT = optax.constant_schedule(0.1)


def test_what_decays():
    params = {
        "tower": {"dense": {"kernel": 0, "bias": 0}, "norm": {"scale": 0, "bias": 0}},
        "bias": {"kernel": 0},  # only the last name counts
        "log_scale": 0,
    }
    assert decay_mask(params, no_decay=NO_DECAY) == {
        "tower": {
            "dense": {"kernel": True, "bias": False},
            "norm": {"scale": False, "bias": False},
        },
        "bias": {"kernel": True},
        "log_scale": False,
    }


@pytest.mark.parametrize("name", ["adamw", "lamb", "adafactor"])
def test_decay_moves_only_what_decays(name):
    """Without a gradient nothing but decay is left."""
    params = {"kernel": jnp.full((2, 2), 3.0), "bias": jnp.full((2,), 3.0)}
    tx = make_optimizer(name=name, schedule=CONSTANT, weight_decay=0.5, no_decay=NO_DECAY)
    updates, _ = tx.update(jax.tree.map(jnp.zeros_like, params), tx.init(params), params)
    np.testing.assert_array_equal(updates["bias"], 0)
    assert (updates["kernel"] < 0).all()
    if name != "lamb":  # which scales an update to the length of its parameter
        np.testing.assert_allclose(updates["kernel"], -0.1 * 0.5 * 3.0, rtol=1e-6)


@pytest.mark.parametrize("name", ["adamw", "lamb", "adafactor"])
def test_every_optimizer_goes_down(name):
    generator = np.random.default_rng(0)
    x = generator.normal(size=(64, 8)).astype(np.float32)
    y = x @ generator.normal(size=(8, 4)).astype(np.float32)
    schedule = optax.constant_schedule(0.05)
    tx = make_optimizer(name=name, schedule=schedule, weight_decay=0.0, clip_norm=100.0)

    def loss(params):
        return jnp.mean((x @ params["kernel"] + params["bias"] - y) ** 2)

    @jax.jit
    def run(params):
        def step(carry, _):
            params, state = carry
            value, grads = jax.value_and_grad(loss)(params)
            updates, state = tx.update(grads, state, params)
            return (optax.apply_updates(params, updates), state), value

        return jax.lax.scan(step, (params, tx.init(params)), length=150)

    start = {"kernel": jnp.full((8, 4), 0.1), "bias": jnp.zeros(4)}
    _, losses = run(start)
    assert losses[-1] < losses[0] / 20, losses[::30]


def test_gradients_are_clipped_by_their_global_norm():
    params = {"a": jnp.zeros(2), "b": jnp.zeros(2)}
    grads = {"a": jnp.array([3.0, 0.0]), "b": jnp.array([0.0, 4.0])}  # of norm 5
    seen = optax.GradientTransformation(lambda _: (), lambda g, state, _=None: (g, state))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(optax, "adamw", lambda *args, **kwargs: seen)
        for norm, factor in ((1.0, 0.2), (10.0, 1.0), (0.0, 1.0)):
            tx = make_optimizer(name="adamw", schedule=CONSTANT, clip_norm=norm)
            clipped, _ = tx.update(grads, tx.init(params), params)
            expected = jax.tree.map(lambda g, factor=factor: g * factor, grads)
            jax.tree.map(np.testing.assert_allclose, clipped, expected)


def test_adafactor_factors_the_moments_of_large_matrices():
    params = {"kernel": jnp.zeros((256, 128))}
    tx = make_optimizer(name="adafactor", schedule=CONSTANT, b1=0.0)
    sizes = [leaf.size for leaf in jax.tree.leaves(jax.eval_shape(tx.init, params))]
    assert max(sizes) == 256
    with_momentum = make_optimizer(name="adafactor", schedule=CONSTANT, b1=0.9)
    sizes = [leaf.size for leaf in jax.tree.leaves(jax.eval_shape(with_momentum.init, params))]
    assert max(sizes) == 256 * 128


def test_an_unknown_optimizer():
    with pytest.raises(UsageError, match=r"optimizer\.name='sgd'.*adamw, lamb, adafactor"):
        make_optimizer(name="sgd", schedule=CONSTANT)


def test_nothing_that_is_no_matrix_decays_by_default():
    """Temperature, bias of the logits, norms, positions: all that ViTs and CLIP leave alone."""
    model = tiny.dual_encoder(token_features=True).clone(logit_bias_init=-10.0)
    model = model.clone(image=model.image.clone(pool="map"))
    batch = tiny.rows(range(2))
    image = jnp.zeros((2, tiny.SIZE, tiny.SIZE, 3))
    params = jax.eval_shape(model.init, jax.random.key(0), image, batch["tokens"])["params"]
    mask = decay_mask(params, no_decay=tuple(base.get_config().optimizer.no_decay))
    for (path, decays), leaf in zip(
        jax.tree_util.tree_leaves_with_path(mask), jax.tree.leaves(params), strict=True
    ):
        matrix = path[-1].key in ("kernel", "embedding")
        assert decays == matrix, (path, leaf.shape)
