"""The encoder: its fast forms are its plain form, and masks hide what they say."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nlip_jax.models.layers import Encoder

DEPTH, WIDTH = 2, 8
X = jnp.asarray(np.random.default_rng(1).normal(size=(2, 5, WIDTH)), jnp.float32)
CAUSAL = jnp.tril(jnp.ones((2, 5, 5), bool))


def encoder(**fields):
    return Encoder(depth=DEPTH, heads=2, **fields)


@pytest.fixture(scope="module")
def params(random_params):
    return random_params(encoder(), X)["params"]


@pytest.fixture(scope="module")
def apply(params):
    return jax.jit(lambda x, mask: encoder().apply({"params": params}, x, mask))


def loss(params, model):
    return jnp.sum(jnp.sin(model.apply({"params": params}, X, CAUSAL)))


def value_and_gradient(params, **fields):
    return jax.jit(jax.value_and_grad(lambda p: loss(p, encoder(**fields))))(params)


def stack(params):
    """The parameters of an unrolled encoder, restacked for one that scans."""
    blocks = [params[f"block_{i}"] for i in range(DEPTH)]
    return {"blocks": jax.tree.map(lambda *p: jnp.stack(p), *blocks), "norm": params["norm"]}


@pytest.fixture(scope="module")
def plain(params):
    return value_and_gradient(params)


@pytest.mark.parametrize(("scan", "remat"), [(False, "full"), (True, "none"), (True, "dots")])
def test_scan_and_remat_keep_value_and_gradient(params, plain, scan, remat):
    arrange = stack if scan else lambda p: p
    value, gradient = value_and_gradient(arrange(params), scan=scan, remat=remat)
    np.testing.assert_allclose(value, plain[0], rtol=1e-5)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5),
        gradient,
        arrange(plain[1]),
    )


@pytest.mark.parametrize("scan", [False, True])
def test_remat_keeps_less_for_the_backward_pass(params, scan):
    def kept(remat):
        model = encoder(remat=remat, scan=scan)
        residuals = jax.eval_shape(
            lambda p: jax.vjp(lambda q: loss(q, model), p)[1], stack(params) if scan else params
        )
        return sum(leaf.size for leaf in jax.tree.leaves(residuals))

    assert kept("full") < kept("dots") < kept("none")


def test_scanned_layers_start_differently_and_alike_in_scale():
    model = encoder(scan=True)

    @jax.jit
    def start():
        return model.init(jax.random.key(0), jnp.zeros((1, 4, 64)))["params"]["blocks"]["attention"]

    attention = start()
    kernel, out = attention["query"]["kernel"], attention["out"]["kernel"]
    assert kernel.shape == (DEPTH, 64, 2, 32)
    assert np.abs(kernel[0] - kernel[1]).max() > 0.01
    np.testing.assert_allclose(np.std(kernel, axis=(1, 2, 3)), 64**-0.5, rtol=0.05)
    np.testing.assert_allclose(np.std(out, axis=(1, 2, 3)), (64 * 2 * DEPTH) ** -0.5, rtol=0.05)


def test_bfloat16_computes_nearly_the_same_and_returns_float32(params, apply):
    @jax.jit
    def run(x):
        model = encoder(dtype="bfloat16")
        return model.apply({"params": params}, x, CAUSAL, capture_intermediates=True)

    rounded, captured = run(X)
    assert rounded.dtype == jnp.float32
    assert 1e-4 < np.abs(rounded - apply(X, CAUSAL)).max() < 0.2
    layer = captured["intermediates"]["block_0"]
    assert layer["__call__"][0][0].dtype == jnp.bfloat16  # the residual stream
    assert layer["mlp"]["narrow"]["__call__"][0].dtype == jnp.bfloat16
    assert layer["attention_norm"]["__call__"][0].dtype == jnp.float32


def test_masks_of_three_and_four_dimensions_hide_the_same(apply):
    out = apply(X, CAUSAL)
    np.testing.assert_array_equal(out, apply(X, CAUSAL[:, None]))
    changed = np.abs(apply(X.at[:, 2].multiply(-1.0), CAUSAL) - out).max(axis=-1)
    assert (changed[:, :2] == 0).all()
    assert (changed[:, 2:] > 1e-4).all()


def test_rows_that_may_look_nowhere_stay_finite_in_value_and_gradient(apply):
    mask = jnp.zeros((2, 5, 5), bool).at[0].set(True)
    out, pullback = jax.vjp(lambda x: apply(x, mask), X)
    assert np.isfinite(out).all()
    assert np.isfinite(pullback(out)[0]).all()
    np.testing.assert_allclose(out[0], apply(X, jnp.ones((2, 5, 5), bool))[0], atol=1e-5)
