"""Captions one token at a time: the same numbers as whole rows, with and without scan."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from four_parts import HINTS, IMAGE, LENGTH, NOISED, TOKENS, four_part

BART = {"norm": "post", "activation": "gelu", "embedding_norm": True, "epsilon": 1e-5}
MEMORY = jnp.asarray(np.random.default_rng(2).normal(size=(3, 5, 8)), jnp.float32)
BEAMS = 2


def model_of(words, *, scan):
    return four_part(words=words, shared={"depth": 2, "scan": scan}, image_decoder=False)


def stack(tree):
    """The parameters of unrolled layers, restacked for a model that scans."""
    if not isinstance(tree, dict):
        return tree
    blocks = [tree[f"block_{i}"] for i in range(2) if f"block_{i}" in tree]
    if not blocks:
        return {name: stack(part) for name, part in tree.items()}
    others = {name: part for name, part in tree.items() if not name.startswith("block_")}
    return others | {"blocks": jax.tree.map(lambda *leaves: jnp.stack(leaves), *blocks)}


def teacher_forced(model, params):
    hidden = model.apply(params, MEMORY, NOISED, HINTS, TOKENS, method="caption_hidden")
    return hidden @ model.apply(params, method="output_table").T


def step_by_step(model, params, *, beams):
    cache = model.apply(params, MEMORY, HINTS, NOISED, method="start_caption")
    past = jax.tree.map(lambda rows: jnp.repeat(rows, beams, axis=0), cache["past"])

    def step(cache, inputs):
        position, tokens = inputs
        logits, cache = model.apply(
            params, cache, jnp.repeat(tokens, beams), position, method="caption_step"
        )
        return cache, logits

    start = {"memory": cache["memory"], "past": past}
    _, logits = jax.lax.scan(step, start, (jnp.arange(LENGTH - 1), TOKENS[:, :-1].T))
    return jnp.moveaxis(logits, 0, 1)


@pytest.fixture(scope="module", params=[{}, BART], ids=["pre", "bart"])
def outputs(request, random_params):
    unrolled = model_of(request.param, scan=False)
    scanned = model_of(request.param, scan=True)
    params = random_params(unrolled, IMAGE, TOKENS)

    @jax.jit
    def run(params):
        stacked = stack(params)
        return {
            "unrolled": teacher_forced(unrolled, params),
            "scanned": teacher_forced(scanned, stacked),
            "unrolled, stepped": step_by_step(unrolled, params, beams=BEAMS),
            "scanned, stepped": step_by_step(scanned, stacked, beams=1),
        }

    return run(params)


def test_scanned_is_unrolled(outputs):
    np.testing.assert_allclose(outputs["scanned"], outputs["unrolled"], atol=1e-5)


@pytest.mark.parametrize("form", ["unrolled", "scanned"])
def test_a_step_at_a_time_is_the_whole_row(outputs, form):
    whole, stepped = outputs[form], outputs[f"{form}, stepped"]
    assert np.abs(whole).max() > 0.1
    if form == "unrolled":  # beams stand side by side and share the memory of their image
        np.testing.assert_array_equal(stepped[::BEAMS], stepped[1::BEAMS])
        stepped = stepped[::BEAMS]
    own = np.asarray(TOKENS != 0)[:, :-1]
    np.testing.assert_allclose(stepped[own], whole[own], atol=1e-5)


def test_a_cache_has_rows_first_and_keeps_its_shapes():
    model = model_of({}, scan=True)
    params = jax.eval_shape(model.init, jax.random.key(0), IMAGE, TOKENS)
    memory = jax.ShapeDtypeStruct(MEMORY.shape, MEMORY.dtype)

    def start(params, memory):
        return model.apply(params, memory, HINTS, method="start_caption")

    def step(params, cache):
        tokens = jnp.zeros(3, jnp.int32)
        return model.apply(params, cache, tokens, jnp.int32(0), method="caption_step")

    cache = jax.eval_shape(start, params, memory)
    logits, after = jax.eval_shape(step, params, cache)
    assert after == cache
    assert all(leaf.shape[0] == 3 for leaf in jax.tree.leaves(cache))
    assert (logits.shape, logits.dtype) == ((3, 20), jnp.float32)
