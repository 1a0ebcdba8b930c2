"""CLIP on the smallest towers, with both similarities, from the first step to a trained model."""

import functools

import numpy as np
import optax
import plain
import pytest
import reference
import tiny
from tiny import abstract_batch, mesh_of, rows, state_of

from nlip_jax import sharding
from nlip_jax.methods.base import Method, scale_image
from nlip_jax.placement import Placement
from nlip_jax.train.state import StateFactory
from nlip_jax.train.step import compile_step, train_step


@pytest.mark.parametrize("similarity", ["dot", "token_max"])
def test_training_learns_which_pairs_belong_together(similarity):
    mesh, batch_size = mesh_of(8), 24
    method = tiny.clip(similarity, choice=plain.choice(impl="ring", mesh=mesh, tile=2))
    schedule = optax.constant_schedule(0.03)
    tx = optax.adam(schedule)
    batch = abstract_batch(batch_size)
    factory = StateFactory(
        method=method, tx=tx, placement=Placement(mesh=mesh), batch=batch, seed=0
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
    images = method.image_features({"params": state.params}, pairs["image"])
    texts = method.text_features({"params": state.params}, pairs["tokens"])
    found = method.similarity.score(images, texts)
    for scores in (found.per_row, found.per_column.T):
        assert (np.argmax(scores, axis=1) == np.arange(batch_size)).mean() > 0.8


# --- the loss -------------------------------------------------------------------------------------

SIMILARITIES = pytest.mark.parametrize("similarity", ["dot", "token_max"])


@SIMILARITIES
def test_the_loss_is_info_nce_of_the_batch(similarity):
    method, batch = tiny.clip(similarity), rows(range(12))
    params = plain.params_of(method)
    (output, pair_losses), _ = plain.outputs_and_gradient(method, params, batch)
    expected = reference.pair_losses(
        *plain.logits_of(method, params, batch),
        "identity",
        np.zeros(12),
        normaliser="softmax",
        valid=np.ones(12, bool),
    )
    np.testing.assert_allclose(pair_losses, expected, rtol=1e-5)
    np.testing.assert_allclose(output.loss, expected.mean(), rtol=1e-5)
    assert set(output.metrics) == {"logit_scale"}


@pytest.mark.parametrize("duplicates", ["ignored", "positives"])
def test_the_same_image_or_caption_twice_is_no_negative(duplicates):
    batch = rows(range(8))
    batch["tokens"][5] = batch["tokens"][2]
    batch["image_id"] = np.array([0, 1, 2, 3, 0, 5, 6, 0], np.int32)
    method = tiny.clip(choice=plain.choice(duplicates=duplicates))
    assert method.inputs == ("image_id",) and tiny.clip().inputs == ()
    params = plain.params_of(method)
    (output, pair_losses), _ = plain.outputs_and_gradient(method, params, batch)
    expected = reference.pair_losses(
        *plain.logits_of(method, params, batch),
        "identity",
        np.zeros(8),
        normaliser="softmax",
        valid=np.ones(8, bool),
        keys=(batch["image_id"][:, None], batch["tokens"]),
        duplicates=duplicates,
    )
    np.testing.assert_allclose(pair_losses, expected, rtol=1e-5)
    np.testing.assert_allclose(output.loss, expected.mean(), rtol=1e-5)
    # 0, 4 and 7 are three pairs of one image; 2 and 5 have one caption.
    assert output.metrics["duplicate_pairs"] == 4
    (plainly, _), _ = plain.outputs_and_gradient(tiny.clip(), params, batch)
    assert abs(plainly.loss - output.loss) > 1e-3


def test_only_the_best_tokens_take_part():
    batch = rows(range(8))
    method = tiny.clip("token_max", token_keep=0.5, token_group=4)
    params = plain.params_of(method)
    (output, _), _ = plain.outputs_and_gradient(method, params, batch)
    features = method.embed(params, state_of(method, params), batch, rng=None).features
    images = np.float64(features["image_tokens"]), np.ones((8, 4), bool)
    texts = np.float64(features["text_tokens"]), np.asarray(features["text_mask"])
    sides = []
    for mine, other in ((images, texts), (texts, images)):
        places = np.concatenate([
            reference.best_tokens(*(x[here] for x in (*mine, *other)), 0.5)
            for here in (slice(0, 4), slice(4, 8))
        ])
        sides.append([np.stack([x[i][place] for i, place in enumerate(places)]) for x in mine])
    (image, image_mask), (text, text_mask) = sides
    assert image.shape[1] == 2 and text.shape[1] == 3
    scale = np.float64(method.scalars(params)["logit_scale"])
    alike = reference.token_max_similarity(image, text, image_mask, text_mask)
    expected = reference.pair_losses(
        *(scale * s for s in alike),
        "identity",
        np.zeros(8),
        normaliser="softmax",
        valid=np.ones(8, bool),
    )
    np.testing.assert_allclose(output.loss, expected.mean(), rtol=1e-5)


# --- features and hooks ---------------------------------------------------------------------------


@SIMILARITIES
def test_features_for_evaluation_are_those_of_training(similarity):
    method = tiny.clip(similarity)
    batch = rows(range(3))
    params = plain.params_of(method)
    both = method.embed(params, state_of(method, params), batch, rng=None).features
    apart = method.image_features({"params": params}, batch["image"])
    apart |= method.text_features({"params": params}, batch["tokens"])
    assert both.keys() == apart.keys()
    for name, value in apart.items():
        assert len(value) == 3  # of each example by itself
        np.testing.assert_allclose(value, both[name], rtol=1e-5, atol=1e-6)
    assert method.similarity.score(apart, apart).per_row.shape == (3, 3)


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
    assert method.columns == () and method.inputs == () and method.refresh_steps == ()
    assert method.example_loss({}, {}, None, state, {}, rng=None) is None
    assert method.update_state(state, state.params, None) is state.method_state
