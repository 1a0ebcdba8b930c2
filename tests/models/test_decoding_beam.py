"""Beam search against a plain twin of its rules and against all captions there are."""

import itertools
import math

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
from nlip_jax.models.decoding.step import repeat_rows


def search(table, images, *, beams, max_length=8, min_length=0, mesh=None, **options):
    @jax.jit
    def run(images):
        return beam_search(
            step_of(table),
            repeat_rows(start(images, max_length), beams),
            batch_size=len(images),
            beams=beams,
            max_length=max_length,
            min_length=min_length,
            bos=BOS,
            eos=EOS,
            pad=PAD,
            **options,
        )

    images = np.asarray(images, np.int32)
    if mesh is not None:
        images = jax.device_put(images, NamedSharding(mesh, PartitionSpec(mesh.axis_names)))
    return jax.tree.map(np.asarray, run(images))


def plain_search(
    table,
    image,
    *,
    beams,
    max_length=8,
    min_length=0,
    length_penalty=1.0,
    prompt=(),
    controls=NO_CONTROLS,
):
    """One image, by lists: (tokens, score)."""

    def log_probs(tokens):
        state = image
        for token in tokens:
            state = next_state(state, token)
        row = controlled(table[state], tokens, controls)
        if len(tokens) < min_length:
            row[EOS] = -np.inf
        return row

    def scored(total, length):
        return total / np.float32(length**length_penalty)

    running, ended, done = [(np.float32(0), [BOS, *prompt])], [], False
    while len(running[0][1]) < max_length and not done:
        options = [
            (total + log_prob, tokens, token)
            for total, tokens in running
            for token, log_prob in enumerate(log_probs(tokens))
        ]
        options.sort(key=lambda option: -option[0])  # stable: the earlier beam, the lower id
        options, running = options[: 2 * beams], []
        for place, (total, tokens, token) in enumerate(options):
            if token != EOS:
                running.append((total, [*tokens, token]))
            elif place < beams and np.isfinite(total):
                ended.append((scored(total, len(tokens)), [*tokens, EOS]))
        running = running[:beams]
        ended = sorted(ended, key=lambda caption: -caption[0])[:beams]
        best = scored(options[0][0], len(options[0][1]))
        done = len(ended) == beams and ended[-1][0] >= best
    if not done:
        ended += [(scored(total, len(tokens)), tokens) for total, tokens in running]
    score, tokens = max(ended, key=lambda caption: caption[0])
    return tokens + [PAD] * (max_length - len(tokens)), score


CASES = [
    {"beams": 1},
    {"beams": 3, "max_length": 12, "min_length": 5},
    {"beams": 3, "length_penalty": 0.0},
    {"beams": 5, "length_penalty": 2.0},
    {"beams": 2, "length_penalty": -0.5, "min_length": 3},
    {"beams": 3, "prompt": (4, 3), "min_length": 4},
    {"beams": 4, "max_length": 2},
    {"beams": 3, "max_length": 10, "controls": Controls(repetition_penalty=1.7)},
    {"beams": 3, "max_length": 10, "controls": Controls(no_repeat_ngram=2, forbidden=(PAD, 4))},
]


@pytest.mark.parametrize("rounded", [False, True])
@pytest.mark.parametrize("options", CASES, ids=str)
def test_equals_the_plain_search(options, rounded):
    images = np.arange(40)
    table = random_table(len(options), rounded=rounded)
    found = search(table, images, **options)
    for image in images:
        tokens, score = plain_search(table, int(image), **options)
        assert found.tokens[image].tolist() == tokens
        np.testing.assert_allclose(found.scores[image], score, rtol=1e-6)


@pytest.mark.parametrize(("min_length", "length_penalty"), [(0, 0.0), (3, 1.0)])
def test_enough_beams_find_the_best_of_all(min_length, length_penalty):
    table, length = random_table(7), 5
    found = search(
        table,
        range(12),
        beams=VOCAB**3,
        max_length=length,
        min_length=min_length,
        length_penalty=length_penalty,
    )
    words = [token for token in range(VOCAB) if token != EOS]
    for image in range(12):
        best = -math.inf, []
        for count in range(length):
            for middle in itertools.product(words, repeat=count):
                tokens, state, total = [BOS, *middle], image, 0.0
                for before, token in itertools.pairwise([*tokens, EOS]):
                    state = next_state(state, before)
                    total += table[state, token] if len(tokens) < length or token != EOS else 0
                if len(tokens) < min_length:
                    continue
                ending = [EOS] if len(tokens) < length else []
                best = max(best, (total / len(tokens) ** length_penalty, tokens + ending))
        assert found.tokens[image].tolist() == best[1] + [PAD] * (length - len(best[1]))
        np.testing.assert_allclose(found.scores[image], best[0], rtol=1e-5)


def test_one_beam_is_greedy():
    table = random_table(3)
    found = search(table, range(30), beams=1)
    for image in range(30):
        tokens, state = [BOS], image
        while len(tokens) < 8 and tokens[-1] != EOS:
            state = next_state(state, tokens[-1])
            tokens.append(int(np.argmax(table[state])))
        assert found.tokens[image].tolist() == tokens + [PAD] * (8 - len(tokens))


def test_any_batch_and_any_mesh():
    table = random_table(5)
    options = {"beams": 3, "max_length": 10, "min_length": 3}
    whole = search(table, range(16), **options)
    for images in ([3], [15, 3, 3, 0]):
        part = search(table, images, **options)
        np.testing.assert_array_equal(part.tokens, whole.tokens[images])
        np.testing.assert_array_equal(part.scores, whole.scores[images])
    spread = search(table, range(16), mesh=mesh_of(8), **options)
    np.testing.assert_array_equal(spread.tokens, whole.tokens)
    np.testing.assert_array_equal(spread.scores, whole.scores)


def test_a_prompt_for_each_image():
    table = random_table(6)
    prompts = np.array([[3, 4], [5, 3], [4, 4]])
    found = search(table, range(3), beams=2, prompt=prompts)
    for image, prompt in enumerate(prompts.tolist()):
        tokens, _ = plain_search(table, image, beams=2, prompt=prompt)
        assert found.tokens[image].tolist() == tokens


def test_stops_when_all_are_done():
    """What ends at once is not decoded to the last position."""
    calls = []

    def step(cache, tokens, position):
        jax.debug.callback(lambda at: calls.append(int(at)), position)
        sure = jnp.where(jnp.arange(VOCAB) == EOS, 0.0, -30.0)
        return jnp.broadcast_to(sure, (len(tokens), VOCAB)), cache

    run = jax.jit(
        lambda: beam_search(
            step,
            {},
            batch_size=4,
            beams=1,
            max_length=50,
            min_length=0,
            bos=BOS,
            eos=EOS,
            pad=PAD,
        )
    )
    assert np.asarray(run().tokens)[:, :3].tolist() == [[BOS, EOS, PAD]] * 4
    jax.effects_barrier()
    assert calls == [0]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"beams": 0}, "beams=0"),
        ({"beams": 2, "max_length": 3, "prompt": (4, 4)}, "max_length=3 has no room"),
        ({"beams": 2, "min_length": 9}, "min_length=9 must be at most max_length=8"),
    ],
)
def test_refuses(options, message):
    with pytest.raises(UsageError, match=message):
        search(random_table(0), range(2), **options)
