import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nlip_jax.errors import UsageError
from nlip_jax.models.text_transformer import POOLS, TextTransformer

SMALL = {"vocab_size": 20, "context_length": 8, "width": 8, "depth": 1, "heads": 2}
TOKENS = jnp.array(
    [[2, 5, 6, 3, 0, 0, 0, 0], [2, 5, 6, 7, 8, 9, 10, 3], [2, 3, 0, 0, 0, 0, 0, 0]], jnp.int32
)
LAST = (3, 7, 1)
# What each pool should read of a row of outputs whose last token is at `last`.
WANT = {
    "eos": lambda row, last: row[last],
    "cls": lambda row, last: row[0],
    "mean": lambda row, last: row[: last + 1].mean(axis=0),
}


@pytest.mark.parametrize(("causal", "pool"), [(True, "eos"), (False, "cls"), (False, "mean")])
def test_tower(random_params, causal, pool):
    tower = TextTransformer(**SMALL, causal=causal, pool=pool)
    params = random_params(tower, TOKENS)
    apply = jax.jit(tower.apply)
    out = apply(params, TOKENS)

    np.testing.assert_array_equal(out["mask"], TOKENS != 0)
    assert out["tokens"].shape == (3, 8, 8)
    assert out["tokens"].dtype == out["pooled"].dtype == jnp.float32
    want = [WANT[pool](row, last) for row, last in zip(out["tokens"], LAST, strict=True)]
    np.testing.assert_allclose(out["pooled"], want, atol=1e-6)

    # Padding: neither what its embedding is nor how much of it there is may matter.
    table = params["params"]["embedding"]["embedding"]
    params["params"]["embedding"]["embedding"] = table.at[0].set(100.0)
    np.testing.assert_allclose(apply(params, TOKENS)["pooled"], out["pooled"], atol=1e-6)
    short = apply(params, TOKENS[:1, :4])
    np.testing.assert_allclose(short["pooled"], out["pooled"][:1], atol=1e-5)
    np.testing.assert_allclose(short["tokens"], out["tokens"][:1, :4], atol=1e-5)

    # A later token changes earlier outputs only where attention looks both ways.
    changed = apply(params, TOKENS.at[1, 5].set(11))["tokens"][1]
    difference = np.abs(changed - out["tokens"][1]).max(axis=-1)
    assert (difference[5:] > 1e-4).all()
    assert ((difference[:5] < 1e-6) if causal else (difference[:5] > 1e-4)).all()

    # A row without any token is finite and leaves the others alone.
    empty = apply(params, TOKENS.at[2].set(0))["pooled"]
    assert np.isfinite(empty).all()
    np.testing.assert_allclose(empty[:2], out["pooled"][:2], atol=1e-6)


def test_weights_of_pools():
    mask = jnp.array([[1, 1, 0], [0, 0, 0]], bool)
    weights = {name: pool(mask).tolist() for name, pool in POOLS.items()}
    assert weights == {
        "eos": [[0, 1, 0], [1, 0, 0]],
        "cls": [[1, 0, 0], [1, 0, 0]],
        "mean": [[0.5, 0.5, 0], [0, 0, 0]],
    }


def test_an_empty_row_has_a_finite_gradient(random_params):
    tower = TextTransformer(**SMALL, causal=False, pool="mean", dtype="bfloat16")
    params = random_params(tower, TOKENS)

    @jax.jit
    @jax.value_and_grad
    def loss(params):
        return jnp.sum(tower.apply(params, TOKENS.at[2].set(0))["pooled"] ** 2)

    value, gradient = loss(params)
    assert value.dtype == jnp.float32
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(gradient))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"pool": "map"}, "pool='map' is not one of eos, cls, mean"),
        ({"pool": "cls"}, "causal=False"),
        ({"heads": 5}, "width=8 is not divisible by heads=5"),
        ({"vocab_size": 0}, "vocab_size=0"),
    ],
)
def test_wrong_fields_are_named_on_construction(fields, message):
    with pytest.raises(UsageError, match=message):
        TextTransformer(**SMALL | fields)


def test_rows_that_are_too_long_are_refused():
    tower = TextTransformer(**SMALL)
    with pytest.raises(UsageError, match="rows of 9 tokens do not fit context_length=8"):
        tower.init(jax.random.key(0), jnp.ones((1, 9), jnp.int32))
