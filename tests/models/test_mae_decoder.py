import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nlip_jax.errors import UsageError
from nlip_jax.models.mae_decoder import MaeDecoder
from nlip_jax.models.vit import sincos2d

FIELDS = {"patch_size": 2, "image_size": 6, "width": 8, "depth": 1, "heads": 2}
VISIBLE = jnp.array([[1, 4, 5], [0, 2, 8]], jnp.int32)
MEMORY = jnp.asarray(np.random.default_rng(1).normal(size=(2, 4, 6)), jnp.float32)
DECODER = MaeDecoder(**FIELDS)


@pytest.fixture(scope="module")
def params(random_params):
    return random_params(DECODER, MEMORY, VISIBLE)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_every_patch_is_guessed(params, dtype):
    pixels = jax.jit(DECODER.clone(dtype=dtype).apply)(params, MEMORY, VISIBLE)
    assert pixels.shape == (2, 9, 12)
    assert pixels.dtype == jnp.float32
    assert len({patch.tobytes() for patch in np.asarray(pixels[0])}) == 9


@pytest.mark.parametrize("first", [0, 1], ids=["patches", "cls"])
def test_what_the_layers_see_against_a_plain_loop(params, first):
    seen = []

    def spy(next_function, args, kwargs, context):
        if context.module.name == "decoder":
            seen.append(args[0])
        return next_function(*args, **kwargs)

    memory = MEMORY[:, 1 - first :]
    with nn.intercept_methods(spy):
        DECODER.apply(params, memory, VISIBLE)
    own, positions = params["params"], sincos2d(3, 8)
    features = memory @ own["embedding"]["kernel"] + own["embedding"]["bias"]
    want = np.tile(own["mask_token"] + positions, (2, 1, 1))
    for row, patches in enumerate(VISIBLE.tolist()):
        for i, patch in enumerate(patches):
            want[row, patch] = features[row, first + i] + positions[patch]
    np.testing.assert_allclose(seen[0][:, first:], want, atol=1e-5)
    np.testing.assert_allclose(seen[0][:, :first], features[:, :first], atol=1e-5)


def test_widths_without_positions_are_refused():
    with pytest.raises(UsageError, match="width=6 is not divisible by 4"):
        MaeDecoder(**FIELDS | {"width": 6})
