"""What NLIP tells of each pair while it trains, and how an estimate without a pass uses it."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import plain
import pytest
import reference
import tiny
from plain import params_of
from tiny import mesh_of, rows, state_of

from nlip_jax import sharding
from nlip_jax.columns import ColumnVersion
from nlip_jax.estimators import gaussian_mixture
from nlip_jax.losses.contrastive import ContrastiveLoss, plain_pair_loss
from nlip_jax.methods.base import Episode
from nlip_jax.methods.completion import Completion

B = 8
NOISE = np.linspace(0, 1, B, dtype=np.float32)


def loss_and_told(method, batch, params):
    """(loss, what is told of each pair or None), as in training."""
    state = state_of(method, params)
    batch = batch | {"row": np.arange(B, dtype=np.int32)}
    embedded = method.embed(params, state, batch, rng=jax.random.key(0))
    output = method.pair_loss(params, embedded.features, state, batch)
    return output.loss, output.metrics.get("pair_loss")


def told(method, batch):
    return jax.jit(functools.partial(loss_and_told, method, batch))(params_of(method))[1]


def plain_losses(method, batch, *, valid=None):
    return reference.pair_losses(
        *plain.logits_of(method, params_of(method), batch),
        "identity",
        np.zeros(B),
        normaliser="softmax",
        valid=np.ones(B, bool) if valid is None else valid,
    )


@pytest.mark.parametrize("form", ["smoothed_targets", "mixture_likelihood"])
def test_each_pair_tells_its_plain_loss_whatever_its_targets_are(form):
    batch = rows(range(B)) | {"noise_prob": NOISE}
    method = tiny.nlip(form=form, online_window=5, itc_weight=0.5)
    losses = told(method, batch)
    assert losses.dtype == jnp.float32
    np.testing.assert_allclose(losses, plain_losses(method, batch), rtol=1e-5)


def test_telling_changes_neither_loss_nor_gradient():
    batch = rows(range(B)) | {"noise_prob": NOISE}
    found = []
    for method in (tiny.nlip(), tiny.nlip(online_window=5)):
        both = jax.value_and_grad(functools.partial(loss_and_told, method, batch), has_aux=True)
        found.append(jax.jit(both)(params_of(method)))
    ((value, nothing), gradient), ((also, losses), also_gradient) = found
    assert nothing is None and losses.shape == (B,)
    np.testing.assert_allclose(value, also, rtol=1e-6)
    close = functools.partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-6)
    jax.tree.map(close, gradient, also_gradient)


def test_nothing_can_be_learned_from_what_is_told():
    rng = np.random.default_rng(0)
    features = {
        name: jnp.asarray(rng.normal(size=(B, 4)), jnp.float32)
        for name in ("image_embed", "text_embed")
    }
    method = tiny.nlip()
    batch = {"noise_prob": NOISE}

    def total(features):
        found: ContrastiveLoss = method.contrast(
            features, batch, targets=method.targets(batch), scalars={"logit_scale": 3.0}
        )
        return jnp.sum(plain_pair_loss(found))

    assert all(not gradient.any() for gradient in jax.grad(total)(features).values())


def test_a_synthetic_text_tells_nothing_of_the_own_one():
    synthetic = rows(range(B, 2 * B))["tokens"]
    batch = rows(range(B)) | {"noise_prob": NOISE, "synthetic_tokens": synthetic}
    method = tiny.nlip(
        online_window=5, completion=Completion(rule="threshold"), context_length=tiny.LENGTH
    )
    losses = told(method, batch)
    is_synthetic = NOISE > 0.5
    np.testing.assert_array_equal(np.isnan(losses), is_synthetic)
    shown = np.where(is_synthetic[:, None], batch["synthetic_tokens"], batch["tokens"])
    expected = plain_losses(method, batch | {"tokens": shown})
    np.testing.assert_allclose(losses[~is_synthetic], expected[~is_synthetic], rtol=1e-5)


def test_a_text_that_is_left_out_tells_nothing():
    batch = rows(range(B)) | {"noise_prob": NOISE}
    method = tiny.nlip(online_window=5, completion=Completion(drop="noise_prob"))
    losses = told(method, batch)
    kept = NOISE <= 0.5
    np.testing.assert_array_equal(np.isnan(losses), ~kept)
    expected = plain_losses(method, batch, valid=kept)
    np.testing.assert_allclose(losses[kept], expected[kept], rtol=1e-5)


def test_the_window_ends_with_the_estimate():
    steps = {"refresh_steps": (4, 9, 20)}
    method = tiny.nlip(online_window=6, **steps)
    assert [method.loss_window(episode) for episode in (1, 2, 3)] == [
        *(range(1, 5), range(4, 10), range(15, 21))
    ]
    only = tiny.nlip(online_window=6, works=(("estimate",), ("captions",), ("estimate",)), **steps)
    assert [len(only.loss_window(episode)) for episode in (1, 2, 3)] == [4, 0, 6]
    assert not tiny.nlip(**steps).loss_window(1)
    assert not tiny.clip().loss_window(1)


def test_an_estimate_of_what_was_seen_needs_no_pass(tmp_path):
    mesh = mesh_of(8)
    method = tiny.nlip(
        online_window=6,
        refresh_steps=(4,),
        fit=functools.partial(gaussian_mixture.fit, num_bins=1024, mesh=mesh),
        posterior=functools.partial(gaussian_mixture.posterior, mesh=mesh),
    )
    rng = np.random.default_rng(0)
    truth = rng.random(1000) < 0.3
    losses = rng.normal(np.where(truth, 4.0, 1.0), 0.4).astype(np.float32)
    losses[3] = np.nan
    asked = []
    episode = Episode(
        index=1,
        map_examples=None,
        column=lambda name: ColumnVersion(directory=tmp_path / name / "0001", key="key"),
        recent_losses=lambda name: (asked.append(name), losses)[1],
    )
    state = jax.device_put(state_of(method, params_of(method)), sharding.replicated(mesh))
    method.refresh(state, episode)
    noise_prob = episode.column("noise_prob").read()
    assert asked == ["pair_loss"] and np.isnan(noise_prob[3])
    known = np.arange(1000) != 3
    assert np.mean((noise_prob[known] > 0.5) == truth[known]) > 0.98
