import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nlip_jax.errors import UsageError
from nlip_jax.models.vit import POOLS, POSITIONS, VisionTransformer, sincos2d

SMALL = {"patch_size": 4, "image_size": 8, "width": 8, "depth": 1, "heads": 2}
IMAGE = jnp.asarray(np.random.default_rng(1).uniform(-1, 1, (3, 8, 8, 3)), jnp.float32)


SWAPPED = jnp.concatenate([IMAGE[:, :, 4:], IMAGE[:, :, :4]], axis=2)


@pytest.mark.parametrize("pool", POOLS)
def test_shapes_dtypes_and_pools(random_params, pool):
    tower = VisionTransformer(**SMALL, pool=pool, dtype="bfloat16")
    params = random_params(tower, IMAGE)
    assert {leaf.dtype for leaf in jax.tree.leaves(params)} == {jnp.dtype("float32")}
    out = jax.jit(tower.apply)(params, IMAGE)
    assert tower.num_tokens == (5 if pool == "cls" else 4)
    assert out["tokens"].shape == (3, tower.num_tokens, 8)
    assert out["pooled"].shape == (3, 8)
    assert out["tokens"].dtype == out["pooled"].dtype == jnp.float32
    if pool == "cls":
        np.testing.assert_array_equal(out["pooled"], out["tokens"][:, 0])
    if pool == "mean":
        np.testing.assert_allclose(out["pooled"], out["tokens"].mean(axis=1), atol=1e-6)


@pytest.mark.parametrize("position", POSITIONS)
def test_only_positions_tell_where_a_patch_is(random_params, position):
    tower = VisionTransformer(**SMALL, position=position, pool="mean")
    params = random_params(tower, IMAGE)
    pooled = jax.jit(lambda p, x: tower.apply(p, x)["pooled"])
    assert np.abs(pooled(params, IMAGE) - pooled(params, SWAPPED)).max() > 1e-3
    if position == "learned":
        params["params"]["position"] = jnp.zeros((4, 8))
        np.testing.assert_allclose(pooled(params, IMAGE), pooled(params, SWAPPED), atol=1e-5)


def test_sincos2d_is_unique_and_depends_on_distance_only():
    table = sincos2d(4, 16)
    assert table.shape == (16, 16)
    product = table @ table.T  # cos(a - b) summed over frequencies: the row, then the column
    np.testing.assert_allclose(np.diag(product), 8, rtol=1e-6)
    np.testing.assert_allclose(product[0, 1], product[5, 6], rtol=1e-5)  # one column apart
    np.testing.assert_allclose(product[0, 4], product[0, 1], rtol=1e-5)  # one row apart
    assert (product + 1e-3 * np.eye(16)).argmax(axis=1).tolist() == list(range(16))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"image_size": 9}, "image_size=9 is not divisible by patch_size=4"),
        ({"heads": 3}, "width=8 is not divisible by heads=3"),
        ({"pool": "eos"}, "pool='eos' is not one of cls, mean, map"),
        ({"position": "rope"}, "position='rope' is not one of learned, sincos2d"),
        ({"dtype": "float16"}, "dtype='float16' is not one of float32, bfloat16"),
        ({"remat": "some"}, "remat='some' is not one of none, full, dots"),
        ({"width": 6, "position": "sincos2d"}, "width=6 is not divisible by 4"),
        ({"depth": 0}, "depth=0"),
    ],
)
def test_wrong_fields_are_named_on_construction(fields, message):
    with pytest.raises(UsageError, match=message):
        VisionTransformer(**SMALL | fields)


def test_images_of_another_size_are_refused():
    with pytest.raises(UsageError, match="image_size=8"):
        VisionTransformer(**SMALL).init(jax.random.key(0), jnp.zeros((1, 12, 12, 3)))
