"""Sampling against a plain loop over one row, token by token, with the same random numbers."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding, PartitionSpec
from tiny import mesh_of
from toy_decoder import (
    BOS,
    EOS,
    PAD,
    VOCAB,
    controlled,
    next_state,
    random_table,
    start,
    step_of,
)

from nlip_jax.errors import UsageError
from nlip_jax.models.decoding.beam import beam_search
from nlip_jax.models.decoding.controls import NO_CONTROLS, Controls
from nlip_jax.models.decoding.sampling import choose, sample

KEYS = jax.random.split(jax.random.key(3), 40)
TABLE = random_table(1)


@functools.partial(jax.jit, static_argnames=("max_length", "min_length", "options"))
def decoded(table, images, keys, *, max_length, min_length, options):
    return sample(
        step_of(table),
        start(images, max_length),
        batch_size=len(images),
        keys=keys,
        max_length=max_length,
        min_length=min_length,
        bos=BOS,
        eos=EOS,
        pad=PAD,
        **dict(options),
    )


def run(table, images, keys=KEYS, *, max_length=10, min_length=0, **options):
    given = jnp.asarray(images, jnp.int32), keys[: len(images)]
    found = decoded(
        jnp.asarray(table),
        *given,
        max_length=max_length,
        min_length=min_length,
        options=tuple(options.items()),
    )
    return jax.tree.map(np.asarray, found)


def plain_choice(log_probs, noise, *, temperature=1.0, top_k=0, top_p=1.0):
    if temperature == 0:
        return int(np.argmax(log_probs))
    log_probs = log_probs / np.float32(temperature)
    order = sorted(range(len(log_probs)), key=lambda token: -log_probs[token])
    order = order[: top_k or None]
    share = np.exp(log_probs[order].astype(np.float64) - log_probs.max())
    share /= share.sum()
    kept, mass = [], 0.0
    for token, probability in zip(order, share, strict=True):
        if mass < top_p:
            kept.append(token)
        mass += probability
    return max(kept, key=lambda token: log_probs[token] + noise[token])


def plain_row(
    table,
    image,
    key,
    *,
    max_length=10,
    min_length=0,
    prompt=(),
    controls=NO_CONTROLS,
    **choice,
):
    """One row, by a list: (tokens, score)."""
    tokens, total, state = [BOS, *prompt], 0.0, image
    for token in tokens[:-1]:
        state = next_state(state, token)
    while len(tokens) < max_length and tokens[-1] != EOS:
        state = next_state(state, tokens[-1])
        allowed = controlled(table[state], tokens, controls)
        if len(tokens) < min_length:
            allowed[EOS] = -np.inf
        noise = np.asarray(jax.random.gumbel(jax.random.fold_in(key, len(tokens) - 1), (VOCAB,)))
        stuck = np.isneginf(allowed).all()
        token = EOS if stuck else plain_choice(allowed, noise, **choice)
        total += table[state, token]
        tokens.append(token)
    length = len(tokens) - (tokens[-1] == EOS)
    return tokens + [PAD] * (max_length - len(tokens)), total / length


CASES = [
    {"temperature": 0.0},
    {"temperature": 0.0, "min_length": 7, "controls": Controls(repetition_penalty=3.0)},
    {"temperature": 1.4},
    {"top_k": 2, "min_length": 4, "prompt": (4, 3)},
    {"top_p": 0.7, "temperature": 0.8, "controls": Controls(no_repeat_ngram=2, forbidden=(PAD,))},
    {"top_k": 4, "top_p": 0.6, "min_length": 10},
    {"max_length": 14, "controls": Controls(no_repeat_ngram=1, repetition_penalty=0.5)},
    {"controls": Controls(no_repeat_ngram=3), "max_length": 14, "min_length": 14},
]


@pytest.mark.parametrize("options", CASES, ids=str)
def test_equals_the_plain_loop(options):
    found = run(TABLE, range(25), **options)
    for image in range(25):
        tokens, score = plain_row(TABLE, image, KEYS[image], **options)
        assert found.tokens[image].tolist() == tokens
        np.testing.assert_allclose(found.scores[image], score, rtol=1e-5)


def test_greedy_takes_the_lowest_of_equals_and_is_a_search_with_one_beam():
    for seed, rounded in ((2, True), (3, False)):
        table = random_table(seed, rounded=rounded)
        found = run(table, range(30), temperature=0.0)
        searched = jax.jit(
            lambda images, table=table: beam_search(
                step_of(table),
                start(images, 10),
                batch_size=30,
                beams=1,
                max_length=10,
                min_length=0,
                bos=BOS,
                eos=EOS,
                pad=PAD,
            )
        )(jnp.arange(30))
        np.testing.assert_array_equal(found.tokens, searched.tokens)
        if not rounded:  # those are no log-probabilities
            np.testing.assert_allclose(found.scores, searched.scores, rtol=1e-5)


@pytest.mark.parametrize("controls", [NO_CONTROLS, Controls(repetition_penalty=1.5)], ids=str)
def test_logits_do_as_well_as_log_probabilities(controls):
    shifted = TABLE + np.arange(len(TABLE), dtype=np.float32)[:, None] % 7
    options = {"top_p": 0.9, "controls": controls}
    found, expected = (run(table, range(25), **options) for table in (shifted, TABLE))
    np.testing.assert_array_equal(found.tokens, expected.tokens)
    np.testing.assert_allclose(found.scores, expected.scores, rtol=1e-4)


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"temperature": 1.0, "top_k": 0, "top_p": 1.0}, [0.4, 0.05, 0.3, 0.15, 0.1]),
        ({"temperature": 1.0, "top_k": 2, "top_p": 1.0}, [4 / 7, 0, 3 / 7, 0, 0]),
        ({"temperature": 1.0, "top_k": 0, "top_p": 0.75}, [8 / 17, 0, 6 / 17, 3 / 17, 0]),
        ({"temperature": 1.0, "top_k": 0, "top_p": 1e-6}, [1, 0, 0, 0, 0]),
        ({"temperature": 0.5, "top_k": 3, "top_p": 0.8}, [0.64, 0, 0.36, 0, 0]),
    ],
    ids=str,
)
def test_tokens_are_as_frequent_as_they_are_likely(options, expected):
    log_probs = np.log(np.array([0.4, 0.05, 0.3, 0.15, 0.1], np.float32)) - 5  # any constant
    count = 20_000
    keys = jax.random.split(jax.random.key(0), count)
    rows = jnp.broadcast_to(log_probs, (count, 5))
    drawn = jax.jit(functools.partial(choose, **options))(rows, keys)
    shares = np.bincount(drawn, minlength=5) / count
    expected = np.array(expected)
    assert (np.abs(shares - expected) <= 4.5 * np.sqrt(expected * (1 - expected) / count)).all()


def test_any_batch_and_any_mesh_and_one_compile():
    options = {"top_p": 0.9, "min_length": 3, "max_length": 12}
    whole = run(TABLE, range(16), **options)
    assert len({row.tobytes() for row in whole.tokens}) > 8
    some = np.array([15, 3])
    part = run(TABLE, some, KEYS[some], **options)
    np.testing.assert_array_equal(part.tokens, whole.tokens[some])
    np.testing.assert_array_equal(part.scores, whole.scores[some])
    compiled = decoded._cache_size()
    run(random_table(9), range(20, 36), KEYS[20:36], **options)
    assert decoded._cache_size() == compiled
    rows = NamedSharding(mesh_of(8), PartitionSpec(mesh_of(8).axis_names))
    images = jax.device_put(np.arange(16, dtype=np.int32), rows)
    spread = run(TABLE, images, jax.device_put(KEYS[:16], rows), **options)
    np.testing.assert_array_equal(spread.tokens, whole.tokens)
    np.testing.assert_array_equal(spread.scores, whole.scores)


def test_another_prompt_for_each_row_and_a_stop_when_all_are_done():
    calls = []
    prompts = np.array([[3, 4], [5, 3], [4, 4]])

    def step(cache, tokens, position):
        jax.debug.callback(lambda at: calls.append(int(at)), position)
        sure = jnp.where(jnp.arange(VOCAB) == EOS, 0.0, -30.0)
        return jnp.broadcast_to(sure, (len(tokens), VOCAB)), cache

    found = jax.jit(
        lambda prompt: sample(
            step,
            {},
            batch_size=3,
            keys=None,
            max_length=50,
            min_length=0,
            bos=BOS,
            eos=EOS,
            pad=PAD,
            temperature=0.0,
            prompt=prompt,
        )
    )(prompts)
    expected = [[BOS, *prompt, EOS, PAD] for prompt in prompts.tolist()]
    assert np.asarray(found.tokens)[:, :5].tolist() == expected
    jax.effects_barrier()
    assert calls == [0, 1, 2]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"temperature": -1.0}, "temperature=-1.0"),
        ({"top_k": -1}, "top_k=-1"),
        ({"top_p": 0.0}, "top_p=0.0"),
        ({"top_p": 1.5}, "top_p=1.5"),
        ({"max_length": 3, "prompt": (4, 4)}, "max_length=3 has no room"),
        ({"min_length": 11}, "min_length=11 must be at most max_length=10"),
    ],
    ids=str,
)
def test_refuses(options, message):
    with pytest.raises(UsageError, match=message):
        run(TABLE, range(2), **options)


def test_refuses_to_draw_without_keys():
    with pytest.raises(UsageError, match=r"temperature=1.0 draws tokens, which needs random keys"):
        sample(
            step_of(TABLE),
            {},
            batch_size=2,
            keys=None,
            max_length=9,
            min_length=0,
            bos=BOS,
            eos=EOS,
            pad=PAD,
        )


@pytest.mark.parametrize(
    ("fields", "message"),
    [({"repetition_penalty": 0.0}, "repetition_penalty=0.0"), ({"no_repeat_ngram": -1}, "=-1")],
)
def test_controls_refuse(fields, message):
    with pytest.raises(UsageError, match=message):
        Controls(**fields)
