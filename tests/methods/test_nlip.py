"""NLIP: plain contrast where nothing is known, and a refresh that finds what was planted."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny
from tiny import mesh_of, rows, state_of

from nlip_jax import sharding
from nlip_jax.columns import ColumnVersion
from nlip_jax.estimators import gaussian_mixture
from nlip_jax.evaluators.noise import auc
from nlip_jax.losses.contrastive import softmax_contrastive
from nlip_jax.losses.similarity import Logits
from nlip_jax.methods.base import Episode
from nlip_jax.methods.nlip import mixture_from_json, mixture_to_json

FORMS = ("smoothed_targets", "mixture_likelihood")
SIMILARITIES = ("dot", "token_max")


def params_of(method):
    return method.init_params(jax.random.key(0), rows([0]))


def loss_and_gradient(method, params, batch):
    """As the step takes them."""

    def compute(params, batch):
        state = state_of(method, params)

        def loss_of(params):
            features = method.embed(params, state, batch, rng=None).features
            return method.pair_loss(params, features, state, batch).loss

        return jax.value_and_grad(loss_of)(params)

    return jax.jit(compute)(params, batch)


# --- the loss -------------------------------------------------------------------------------------


@pytest.mark.parametrize("similarity", SIMILARITIES)
@pytest.mark.parametrize("form", FORMS)
def test_without_noise_it_is_clip(form, similarity):
    """Bit for bit in the loss; XLA may fuse the gradient's sums in another order."""
    batch = rows(range(16))
    method = tiny.nlip(similarity, form=form)
    params = params_of(method)
    plain = loss_and_gradient(tiny.clip(similarity), params, batch)
    adaptive = loss_and_gradient(method, params, batch | {"noise_prob": np.zeros(16, np.float32)})
    np.testing.assert_array_equal(adaptive[0], plain[0])
    close = functools.partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-7)
    jax.tree.map(close, adaptive[1], plain[1])


@pytest.mark.parametrize("form", FORMS)
def test_without_noise_the_gradient_of_the_logits_is_clips_bit_for_bit(form):
    """Operation by operation, before XLA fuses anything."""
    logits = np.random.default_rng(0).normal(0, 5, (8, 8)).astype(np.float32)
    method, batch = tiny.nlip(form=form), {"noise_prob": np.zeros(8, np.float32)}

    def loss(logits, targets):
        return softmax_contrastive(Logits(logits, logits.T), targets=targets).loss

    with jax.disable_jit():
        adaptive = jax.grad(loss)(logits, method.targets(batch))
        plain = jax.grad(loss)(logits, tiny.clip().targets(batch))
    np.testing.assert_array_equal(adaptive, plain)


@pytest.mark.parametrize("form", FORMS)
def test_noise_softens_the_targets_by_weight_times_probability(form):
    """Against the targets written out, in float64."""
    batch = rows(range(8)) | {"noise_prob": np.linspace(0, 1, 8, dtype=np.float32)}
    method = tiny.nlip(form=form, weight=0.6)
    params = params_of(method)
    loss, _ = loss_and_gradient(method, params, batch)
    features = method.model.apply({"params": params}, batch["image"] / 127.5 - 1, batch["tokens"])
    scale = np.float64(features["logit_scale"])
    logits = scale * np.float64(features["image_embed"]) @ np.float64(features["text_embed"]).T
    own, share = np.eye(8), (0.6 * batch["noise_prob"] / 7)[:, None]
    targets = own * (1 - 7 * share) + (1 - own) * share
    losses = []
    for a in (logits, logits.T):
        log_p = a - np.log(np.exp(a).sum(1, keepdims=True))
        if form == "smoothed_targets":
            losses.append(-(targets * log_p).sum(1))
        else:
            losses.append(-np.log((targets * np.exp(log_p)).sum(1)))
    np.testing.assert_allclose(loss, np.mean(losses), rtol=1e-5)


def test_the_loss_pass_sees_the_plain_loss():
    """What the mixture is fitted to does not depend on the last estimate."""
    batch = rows(range(8))
    method = tiny.nlip()
    params = params_of(method)
    losses = jax.jit(method.plain_pair_loss)(state_of(method, params), batch)
    assert losses.shape == (8,) and losses.dtype == jnp.float32
    plain, _ = loss_and_gradient(tiny.clip(), params, batch)
    np.testing.assert_allclose(losses.mean(), plain, rtol=1e-6)


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
