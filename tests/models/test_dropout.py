"""Dropout by example: masks follow an example wherever it goes, and whatever computes them."""

import itertools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nlip_jax.errors import UsageError
from nlip_jax.models.dropout import dropout, example_keys, fold
from nlip_jax.models.dual_encoder import DualEncoder
from nlip_jax.models.layers import Encoder
from nlip_jax.models.text_transformer import TextTransformer
from nlip_jax.models.vit import VisionTransformer

RNG = jax.random.key(3)
ROW = jnp.arange(6, dtype=jnp.int32)
X = jnp.asarray(np.random.default_rng(1).normal(size=(6, 4, 8)), jnp.float32)


def test_masks_have_their_rate_and_keep_the_expectation():
    keys = example_keys(RNG, jnp.arange(64))
    dropped = np.asarray(dropout(jnp.ones((64, 500), jnp.bfloat16), keys, 0.2))
    assert dropped.dtype == jnp.bfloat16
    assert set(np.unique(dropped.astype(np.float32))) == {0, 1.25}
    np.testing.assert_allclose((dropped == 0).mean(), 0.2, atol=0.01)
    assert len({row.tobytes() for row in dropped}) == 64


def test_masks_follow_the_example():
    whole = dropout(X, example_keys(RNG, ROW), 0.5)
    some = jnp.array([4, 1])
    np.testing.assert_array_equal(dropout(X[some], example_keys(RNG, ROW[some]), 0.5), whole[some])
    assert (dropout(X, example_keys(jax.random.key(4), ROW), 0.5) != whole).any()
    assert (dropout(X, fold(example_keys(RNG, ROW), 1), 0.5) != whole).any()


def encoder(**fields):
    return Encoder(**{"depth": 3, "heads": 2, "dropout": 0.4} | fields)


@pytest.fixture(scope="module")
def params(random_params):
    return random_params(encoder(), X)["params"]


def value_and_gradient(params, model, keys):
    def loss(params):
        return jnp.sum(jnp.sin(model.apply({"params": params}, X, None, keys)))

    return jax.jit(jax.value_and_grad(loss))(params)


def stack(params):
    blocks = [params[f"block_{i}"] for i in range(3)]
    return {"blocks": jax.tree.map(lambda *p: jnp.stack(p), *blocks), "norm": params["norm"]}


@pytest.mark.parametrize("remat", ["none", "full", "dots"])
def test_scanned_and_recomputed_layers_drop_what_plain_ones_do(params, remat):
    keys = example_keys(RNG, ROW)
    value, gradient = value_and_gradient(params, encoder(), keys)
    found = value_and_gradient(stack(params), encoder(scan=True, remat=remat), keys)
    np.testing.assert_allclose(found[0], value, rtol=1e-5)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5),
        found[1],
        stack(gradient),
    )


def test_every_update_of_every_layer_has_its_own_mask(params):
    """Where an update is dropped, the residual stream stays as it was."""
    streams = []

    def watch(next_function, arguments, keywords, context):
        out = next_function(*arguments, **keywords)
        if context.module.name in ("attention_norm", "mlp_norm", "norm"):
            streams.append(arguments[0])  # before each update, and after the last
        return out

    with nn.intercept_methods(watch):
        encoder().apply({"params": params}, X, None, example_keys(RNG, ROW))
    masks = [np.asarray(before == after) for before, after in itertools.pairwise(streams)]
    assert len({mask.tobytes() for mask in masks}) == len(masks) == 6
    for mask in masks:
        np.testing.assert_allclose(mask.mean(), 0.4, atol=0.12)


def test_towers_drop_differently_and_only_given_keys(random_params):
    def towers(rate):
        shared = {"width": 8, "depth": 1, "heads": 2, "dropout": rate}
        return DualEncoder(
            image=VisionTransformer(patch_size=4, image_size=8, **shared),
            text=TextTransformer(vocab_size=20, context_length=4, **shared),
            embed_dim=6,
        )

    image = jnp.asarray(np.random.default_rng(0).uniform(-1, 1, (6, 8, 8, 3)), jnp.float32)
    tokens = jnp.full((6, 4), 5, jnp.int32)
    params = random_params(towers(0.5), image, tokens)
    keys = example_keys(RNG, ROW)

    def apply(rate, keys):
        return jax.jit(towers(rate).apply)(params, image, tokens, keys)

    plain, dropped = apply(0.0, None), apply(0.5, keys)
    jax.tree.map(np.testing.assert_array_equal, apply(0.5, None), plain)
    jax.tree.map(np.testing.assert_array_equal, apply(0.0, keys), plain)
    for name in ("image_embed", "text_embed"):
        assert (np.abs(dropped[name] - plain[name]).max(axis=1) > 1e-3).all()
    # The same caption in every row: masks differ by row.
    assert len(np.unique(np.asarray(dropped["text_embed"]), axis=0)) == 6


def test_no_dropout_costs_nothing(params):
    def compiled(rate, keys):
        model = encoder(dropout=rate, scan=True)
        function = jax.jit(lambda p, k: model.apply({"params": p}, X, None, k))
        return function.lower(stack(params), keys).compile().cost_analysis()

    assert compiled(0.0, example_keys(RNG, ROW)) == compiled(0.4, None)


@pytest.mark.parametrize("rate", [-0.1, 1.0])
def test_rates_outside_of_the_range_are_refused(rate):
    with pytest.raises(UsageError, match=r"dropout=.* must lie in \[0, 1\)"):
        VisionTransformer(patch_size=4, image_size=8, width=8, depth=1, heads=2, dropout=rate)
