"""Layers that also look at a memory, and layers as BART has them."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from four_parts import HINTS, IMAGE, NOISED, TOKENS, four_part

from nlip_jax.models.dropout import example_keys
from nlip_jax.models.layers import Encoder

WIDTH = 8
GENERATOR = np.random.default_rng(1)
X = jnp.asarray(GENERATOR.normal(size=(2, 4, WIDTH)), jnp.float32)
MEMORY = jnp.asarray(GENERATOR.normal(size=(2, 3, WIDTH)), jnp.float32)
SEEN = jnp.array([[True, True, False], [True, False, False]])
CAUSAL = jnp.tril(jnp.ones((1, 4, 4), bool))
KEYS = example_keys(jax.random.key(0), jnp.arange(2))


def decoder(**fields):
    return Encoder(depth=2, heads=2, mlp_dim=16, cross=True, **fields)


@pytest.fixture(scope="module")
def params(random_params):
    return random_params(decoder(), X, CAUSAL, None, MEMORY, SEEN)["params"]


def stack(params):
    blocks = [params[f"block_{i}"] for i in range(2)]
    return {"blocks": jax.tree.map(lambda *p: jnp.stack(p), *blocks), "norm": params["norm"]}


def run(params, memory, **fields):
    return decoder(**fields).apply({"params": params}, X, CAUSAL, KEYS, memory, SEEN)


def test_scan_and_remat_keep_value_and_gradient(params):
    @jax.jit
    def both(params, memory):
        def loss(params, memory, **fields):
            arranged = stack(params) if fields else params
            return jnp.sum(jnp.sin(run(arranged, memory, dropout=0.3, **fields)))

        gradient = jax.value_and_grad(loss, argnums=(0, 1))
        fast = gradient(params, memory, scan=True, remat="dots")
        return gradient(params, memory), fast

    plain, fast = both(params, MEMORY)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5), fast, plain)
    # What is masked in the memory has no influence.
    hidden = np.broadcast_to(~SEEN[..., None], MEMORY.shape)
    slope = np.asarray(plain[1][1])
    assert (slope[hidden] == 0).all()
    assert (slope[~hidden] != 0).all()


def softmax(x):
    powers = np.exp(x - x.max(axis=-1, keepdims=True))
    return powers / powers.sum(axis=-1, keepdims=True)


def gelu(x):
    return 0.5 * x * (1 + np.vectorize(math.erf)(x / math.sqrt(2)))


def layer_norm(x, own):
    centred = x - x.mean(axis=-1, keepdims=True)
    variance = (centred**2).mean(axis=-1, keepdims=True)
    return centred / np.sqrt(variance + 1e-5) * own["scale"] + own["bias"]


def attend(own, query, memory, mask):
    """Attention in float64, all heads."""

    def project(name, x):
        return np.einsum("blw,whd->bhld", x, own[name]["kernel"]) + own[name]["bias"][:, None]

    q, k, v = project("query", query), project("key", memory), project("value", memory)
    scores = np.einsum("bhld,bhmd->bhlm", q, k) / np.sqrt(q.shape[-1])
    mixed = np.einsum("bhlm,bhmd->blhd", softmax(np.where(mask, scores, -1e30)), v)
    return np.einsum("blhd,hdw->blw", mixed, own["out"]["kernel"]) + own["out"]["bias"]


def bart_layer(own, x, mask, memory=None, memory_mask=None):
    """A layer of BART (Lewis et al., 2019): each part's sum is normalised."""
    x = layer_norm(x + attend(own["attention"], x, x, mask), own["attention_norm"])
    if memory is not None:
        y = attend(own["cross_attention"], x, memory, memory_mask)
        x = layer_norm(x + y, own["cross_attention_norm"])
    mlp = own["mlp"]
    y = gelu(x @ mlp["wide"]["kernel"] + mlp["wide"]["bias"])
    y = y @ mlp["narrow"]["kernel"] + mlp["narrow"]["bias"]
    return layer_norm(x + y, own["mlp_norm"])


def test_text_feature_and_captioner_as_bart_would_have_them(random_params):
    words = {"norm": "post", "activation": "gelu", "embedding_norm": True, "epsilon": 1e-5}
    model = four_part(words=words, image_decoder=False)
    params = random_params(model, IMAGE, TOKENS)
    seen = jnp.asarray(GENERATOR.normal(size=(3, 2, 8)), jnp.float32)

    @jax.jit
    def ours(params):
        text = model.apply(params, TOKENS, None, HINTS, method="encode_text")
        call = {"method": "caption_hidden"}
        return text["text_tokens"], model.apply(params, seen, NOISED, HINTS, TOKENS, **call)

    own = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), params["params"])
    table = own["text"]["embedding"]["embedding"]

    def encode(tokens, hints):
        x = table[tokens] + own["text"]["position"][: tokens.shape[1]]
        places = own["text"]["concepts"]
        hint = table[hints] + places["position"][: hints.shape[1]] + places["type"]
        x = np.concatenate([x, hint], axis=1)
        mask = np.concatenate([tokens, hints], axis=1) != 0
        x = layer_norm(x, own["text"]["first_norm"])
        return bart_layer(own["text"]["encoder"]["block_0"], x, mask[:, None, None]), mask

    def decode(tokens, memory, mask):
        length = tokens.shape[1]
        x = table[tokens] + own["decoder"]["position"][:length]
        x = layer_norm(x, own["decoder"]["first_norm"])
        visible = np.tril(np.ones((length, length), bool)) & (tokens != 0)[:, None, None]
        layer = own["decoder"]["decoder"]["block_0"]
        return bart_layer(layer, x, visible, memory, mask[:, None, None])

    tokens, hints, noised = (np.asarray(ids) for ids in (TOKENS, HINTS, NOISED))
    projected = decode(tokens, *encode(tokens, hints[:, :0])) @ own["text_projection"]["kernel"]
    feature = projected / np.linalg.norm(projected, axis=-1, keepdims=True)
    projection = own["memory_projection"]
    image = np.asarray(seen) @ projection["kernel"] + projection["bias"] + own["memory_type"][0]
    text, mask = encode(noised, hints)
    memory = np.concatenate([image, text + own["memory_type"][1]], axis=1)
    mask = np.concatenate([np.ones((3, 2), bool), mask], axis=1)
    hidden = decode(tokens[:, :-1], memory, mask)

    found_feature, found_hidden = ours(params)
    real = tokens != 0
    np.testing.assert_allclose(found_feature[real], feature[real], atol=1e-5)
    np.testing.assert_allclose(found_hidden[real[:, :-1]], hidden[real[:, :-1]], atol=1e-5)
