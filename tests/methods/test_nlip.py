"""NLIP: plain contrast where nothing is known, and a refresh that finds what was planted."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import plain
import pytest
import reference
import tiny
from plain import outputs_and_gradient, params_of
from tiny import mesh_of, rows, state_of

from nlip_jax import sharding
from nlip_jax.columns import ColumnVersion
from nlip_jax.estimators import gaussian_mixture
from nlip_jax.evaluators.noise import auc
from nlip_jax.losses.normalisers import NORMALISERS
from nlip_jax.methods.base import Episode
from nlip_jax.methods.nlip import mixture_from_json, mixture_to_json

FORMS = {"smoothed_targets": "smoothed", "mixture_likelihood": "mixture_likelihood"}
SIMILARITIES = ("dot", "token_max")


# --- the loss -------------------------------------------------------------------------------------


def clip_of(similarity, normaliser):
    return tiny.clip(similarity, normaliser=NORMALISERS[normaliser])


@pytest.mark.parametrize("similarity", SIMILARITIES)
@pytest.mark.parametrize("normaliser", NORMALISERS)
@pytest.mark.parametrize("form", FORMS)
def test_without_noise_it_is_clip(form, normaliser, similarity):
    """To roundings: XLA may fuse the sums of two programs in two orders, as jax 0.12 does."""
    batch = rows(range(16))
    method = tiny.nlip(similarity, form=form, normaliser=normaliser)
    params = params_of(method)
    (plainly, _), gradient = outputs_and_gradient(clip_of(similarity, normaliser), params, batch)
    unknown = batch | {"noise_prob": np.zeros(16, np.float32)}
    (adaptive, _), adaptive_gradient = outputs_and_gradient(method, params, unknown)
    np.testing.assert_allclose(adaptive.loss, plainly.loss, rtol=1e-6)
    close = functools.partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-6)
    jax.tree.map(close, adaptive_gradient, gradient)
    assert adaptive.metrics["noise_prob"] == 0.0


@pytest.mark.parametrize("form", FORMS)
def test_without_noise_loss_and_gradient_of_the_features_are_clips_bit_for_bit(form):
    """Operation by operation, before XLA fuses anything."""
    rng = np.random.default_rng(0)
    features = {name: jnp.asarray(rng.normal(size=(8, 4)), jnp.float32) for name in (
        "image_embed", "text_embed"
    )}
    batch, scalars = {"noise_prob": np.zeros(8, np.float32)}, {"logit_scale": jnp.float32(3.0)}

    def loss(features, method):
        wanted = method.targets(batch)
        return method.contrast(features, batch, targets=wanted, scalars=scalars).loss

    with jax.disable_jit():
        adaptive = jax.value_and_grad(loss)(features, tiny.nlip(form=form))
        plainly = jax.value_and_grad(loss)(features, tiny.clip())
    jax.tree.map(np.testing.assert_array_equal, adaptive, plainly)


@pytest.mark.parametrize("normaliser", NORMALISERS)
@pytest.mark.parametrize("form", FORMS)
def test_noise_softens_the_targets_by_weight_times_probability(form, normaliser):
    batch = rows(range(8)) | {"noise_prob": np.linspace(0, 1, 8, dtype=np.float32)}
    method = tiny.nlip(form=form, normaliser=normaliser, weight=0.6)
    params = params_of(method)
    (output, pair_losses), _ = outputs_and_gradient(method, params, batch)
    expected = reference.pair_losses(
        *plain.logits_of(method, params, batch),
        FORMS[form],
        0.6 * np.float64(batch["noise_prob"]),
        normaliser=normaliser,
        valid=np.ones(8, bool),
    )
    np.testing.assert_allclose(pair_losses, expected, rtol=1e-5)
    np.testing.assert_allclose(output.loss, expected.mean(), rtol=1e-5)
    np.testing.assert_allclose(output.metrics["noise_prob"], 0.5)


@pytest.mark.parametrize("normaliser", NORMALISERS)
def test_the_loss_pass_sees_the_plain_loss(normaliser):
    """What the mixture is fitted to does not depend on the last estimate."""
    batch = rows(range(8))
    method = tiny.nlip(normaliser=normaliser)
    params = params_of(method)
    losses = jax.jit(method.plain_pair_loss)(state_of(method, params), batch)
    assert losses.shape == (8,) and losses.dtype == jnp.float32
    (plainly, _), _ = outputs_and_gradient(clip_of("dot", normaliser), params, batch)
    np.testing.assert_allclose(losses.mean(), plainly.loss, rtol=1e-6)


def test_a_pair_that_is_there_twice_is_not_noisy_for_that():
    """Where duplicates are positives the loss pass leaves them out: they would share a row's 1."""
    batch = rows([0, 0, 1, 2, 3, 4]) | {"image_id": np.array([0, 0, 1, 2, 3, 4], np.int32)}
    params = params_of(tiny.nlip())
    passes = {}
    for duplicates in ("ignored", "positives"):
        method = tiny.nlip(choice=plain.choice(duplicates=duplicates))
        passes[duplicates] = jax.jit(method.plain_pair_loss)(state_of(method, params), batch)
    np.testing.assert_array_equal(passes["positives"], passes["ignored"])


# --- refresh --------------------------------------------------------------------------------------


class Planted:
    """Losses as a warmed-up model gives them: noisy pairs stand out."""

    def __init__(self, folder, *, key="key", n=2000, share=0.3):
        rng = np.random.default_rng(0)
        self.truth = rng.random(n) < share
        self.losses = rng.normal(np.where(self.truth, 4.0, 1.0), 0.5).astype(np.float32)
        self.folder, self.key, self.passes = folder, key, []

    def episode(self, index: int) -> Episode:
        def map_examples(name, function, state):
            self.passes.append((index, name, function))
            return self.losses

        def column(name):
            return ColumnVersion(directory=self.folder / name / f"{index:04d}", key=self.key)

        return Episode(index=index, map_examples=map_examples, column=column)


@pytest.fixture(scope="module")
def method():
    mesh = mesh_of(8)
    return tiny.nlip(
        fit=functools.partial(gaussian_mixture.fit, num_bins=1024, mesh=mesh),
        posterior=functools.partial(gaussian_mixture.posterior, mesh=mesh),
    )


@pytest.fixture
def state(method):
    everywhere = sharding.replicated(mesh_of(8))
    return jax.device_put(state_of(method, params_of(method)), everywhere)


def test_a_refresh_finds_the_planted_noise(method, state, tmp_path):
    planted = Planted(tmp_path)
    after = method.refresh(state, planted.episode(1))
    assert [(index, name) for index, name, _ in planted.passes] == [(1, "pair_loss")]
    assert planted.passes[0][2] == method.plain_pair_loss

    noise_prob = planted.episode(1).column("noise_prob").read()
    assert noise_prob.dtype == np.float32 and noise_prob.shape == planted.truth.shape
    assert auc(noise_prob[planted.truth], noise_prob[~planted.truth]) > 0.999
    assert ((noise_prob > 0.5) == planted.truth).mean() > 0.99

    mixture = after.method_state
    span = float(mixture.high - mixture.low)
    np.testing.assert_allclose(mixture.low + span * mixture.mean, [1.0, 4.0], atol=0.1)
    np.testing.assert_allclose(mixture.weight, [0.7, 0.3], atol=0.05)
    jax.tree.map(
        lambda new, old: (new.sharding, new.dtype) == (old.sharding, old.dtype) or pytest.fail(),
        after,
        state,
    )
    jax.tree.map(np.testing.assert_array_equal, after.params, state.params)


def test_a_refresh_that_was_killed_uses_what_is_there(method, state, tmp_path):
    planted = Planted(tmp_path)
    first = method.refresh(state, planted.episode(1))
    again = method.refresh(state, planted.episode(1))
    assert len(planted.passes) == 1
    jax.tree.map(np.testing.assert_array_equal, again.method_state, first.method_state)


def test_other_parameters_and_later_episodes_are_estimated_anew(method, state, tmp_path):
    planted = Planted(tmp_path)
    method.refresh(state, planted.episode(1))
    planted.key = "other parameters"
    method.refresh(state, planted.episode(1))
    method.refresh(state, planted.episode(2))
    assert [index for index, *_ in planted.passes] == [1, 1, 2]
    assert planted.episode(2).column("noise_prob").is_done


def test_a_mixture_survives_json_exactly():
    rng = np.random.default_rng(0)
    mixture = gaussian_mixture.GaussianMixture(
        mean=rng.random(2, np.float32),
        variance=rng.random(2, np.float32) / 3,
        weight=rng.random(2, np.float32),
        low=np.float32(1 / 3),
        high=np.float32(7.1),
    )
    back = mixture_from_json(mixture_to_json(mixture))
    jax.tree.map(np.testing.assert_array_equal, back, mixture)
    assert {leaf.dtype for leaf in jax.tree.leaves(back)} == {np.dtype(np.float32)}
