"""CLIP on the smallest towers, with both similarities, from the first step to a trained model."""

import functools

import jax
import numpy as np
import optax
import pytest
import tiny
from tiny import abstract_batch, mesh_of, rows, state_of

from nlip_jax import sharding
from nlip_jax.methods.base import Method, scale_image
from nlip_jax.train.state import StateFactory
from nlip_jax.train.step import compile_step, train_step


@pytest.mark.parametrize("similarity", ["dot", "token_max"])
def test_training_learns_which_pairs_belong_together(similarity):
    method, mesh, batch_size = tiny.clip(similarity), mesh_of(8), 24
    schedule = optax.constant_schedule(0.03)
    tx = optax.adam(schedule)
    batch = abstract_batch(batch_size)
    factory = StateFactory(
        method=method, tx=tx, mesh=mesh, batch=batch, fsdp_min_bytes=10**9, seed=0
    )
    step = compile_step(
        functools.partial(train_step, method=method, tx=tx, schedule=schedule, seed=0),
        state=factory.abstract(),
        batch=batch,
        mesh=mesh,
    )
    state, pairs = factory.create(), sharding.to_devices(rows(range(batch_size)), mesh)
    losses = []
    for _ in range(100):
        state, metrics = step(state, pairs)
        losses.append(float(metrics["loss"]))
    assert losses[-1] < 0.3 * losses[0], losses[::20]
    images = method.image_features(state.params, pairs["image"])
    texts = method.text_features(state.params, pairs["tokens"])
    logits = method.similarity(images, texts, 1.0)
    for scores in (logits.per_image, logits.per_text):
        assert (np.argmax(scores, axis=1) == np.arange(batch_size)).mean() > 0.8


@pytest.mark.parametrize("similarity", ["dot", "token_max"])
def test_features_for_evaluation_are_those_of_training(similarity):
    method = tiny.clip(similarity)
    batch = rows(range(3))
    params = method.init_params(jax.random.key(0), batch)
    both = method.embed(params, state_of(method, params), batch, rng=None).features
    apart = method.image_features(params, batch["image"])
    apart |= method.text_features(params, batch["tokens"])
    assert both.keys() - apart.keys() == {"logit_scale"}
    for name, value in apart.items():
        np.testing.assert_allclose(value, both[name], rtol=1e-5, atol=1e-6)
    logits = method.similarity(apart, apart, both["logit_scale"])
    assert logits.per_image.shape == (3, 3)


def test_pixels_are_scaled_on_the_device():
    scaled = scale_image(np.array([0, 255], np.uint8))
    assert scaled.dtype == np.float32
    np.testing.assert_array_equal(scaled, [-1, 1])


def test_a_method_without_a_loss_says_so():
    with pytest.raises(TypeError, match="Method defines no pair_loss"):
        Method(model=None).pair_loss({}, {}, None, {})


def test_a_method_without_hooks_changes_nothing():
    method = Method(model=None)
    state = state_of(method, {"w": np.ones(2)})
    assert method.refresh(state, None) is state
    assert method.columns == () and method.refresh_steps == ()
    assert method.update_state(state, state.params, None) is state.method_state
