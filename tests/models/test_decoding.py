"""The one description of all ways to decode: each finds what the function behind it does."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from toy_decoder import BOS, EOS, PAD, VOCAB, random_table, start, step_of

from nlip_jax.errors import UsageError
from nlip_jax.models.decoding.beam import beam_search
from nlip_jax.models.decoding.controls import Controls
from nlip_jax.models.decoding.decoding import KINDS, Decoding, decode
from nlip_jax.models.decoding.sampling import sample
from nlip_jax.models.decoding.step import normalised, repeat_rows
from nlip_jax.models.dropout import fold

IMAGES, LENGTH = 12, 8
KEYS = jax.random.split(jax.random.key(5), IMAGES)
STEP = step_of(random_table(4) + 2.5)  # logits
SHARED = {"batch_size": IMAGES, "bos": BOS, "eos": EOS, "pad": PAD}
PROMPT = (4,)


@functools.partial(jax.jit, static_argnames=("settings", "prompt", "forbidden"))
def run(keys, settings, prompt=PROMPT, forbidden=()):
    cache = start(jnp.arange(IMAGES), LENGTH)
    return decode(
        settings, STEP, cache, keys=keys, prompt=prompt, forbidden=forbidden, **SHARED
    )


def right(kind, **fields):
    """By the function that a kind stands for, at lengths that count [bos] and the prompt."""
    controls = Controls(forbidden=(BOS, PAD), repetition_penalty=1.2, no_repeat_ngram=2)
    rows = {"max_length": 8, "min_length": 5, "prompt": PROMPT, "controls": controls} | SHARED
    images = jnp.arange(IMAGES)
    if kind == "beam":
        cache = repeat_rows(start(images, LENGTH), 2)
        return beam_search(normalised(STEP), cache, **rows, **fields)
    return sample(STEP, start(images, LENGTH), keys=fold(KEYS, 0), **rows, **fields)


KEYWORDS = {
    "greedy": {"temperature": 0.0},
    "sample": {"temperature": 1.3},
    "top_k": {"temperature": 1.3, "top_k": 3},
    "nucleus": {"temperature": 1.3, "top_p": 0.8},
    "beam": {"beams": 2, "length_penalty": 0.5},
}


@pytest.mark.parametrize("kind", KINDS)
def test_is_the_function_behind_it(kind):
    settings = Decoding(
        kind=kind,
        top_p=0.8,
        top_k=3,
        temperature=1.3,
        beams=2,
        length_penalty=0.5,
        min_length=3,
        max_length=6,
        repetition_penalty=1.2,
        no_repeat_ngram=2,
    )
    found = run(KEYS if KINDS[kind].draws else None, settings)
    expected = jax.jit(functools.partial(right, kind, **KEYWORDS[kind]))()
    assert found.tokens.shape == (IMAGES, 1, 8)
    np.testing.assert_array_equal(found.tokens[:, 0], expected.tokens)
    np.testing.assert_array_equal(found.scores[:, 0], expected.scores)
    counts = (np.asarray(found.tokens[:, 0]) > EOS).sum(axis=1) - len(PROMPT)
    assert counts.min() >= 3 and counts.max() <= 6


def test_candidates_differ_and_the_first_stay_when_more_are_asked_for():
    settings = [
        Decoding(kind="sample", min_length=0, max_length=6, candidates=n) for n in (1, 3)
    ]
    one, three = (run(KEYS, each) for each in settings)
    assert three.tokens.shape == (IMAGES, 3, 8) and three.scores.shape == (IMAGES, 3)
    np.testing.assert_array_equal(three.tokens[:, :1], one.tokens)
    np.testing.assert_array_equal(three.scores[:, :1], one.scores)
    tokens = np.asarray(three.tokens)
    assert (tokens[:, :, :2] == [BOS, *PROMPT]).all()
    assert (tokens[:, 0] != tokens[:, 1]).any(axis=1).mean() > 0.5


def test_prompts_of_each_image_and_forbidden_ids():
    prompts = np.arange(IMAGES)[:, None] % 3 + 3
    cache = start(jnp.arange(IMAGES), LENGTH)
    settings = Decoding(kind="sample", min_length=6, max_length=6, candidates=2)
    found = jax.jit(
        lambda prompts: decode(
            settings, STEP, cache, keys=KEYS, prompt=prompts, forbidden=(3,), **SHARED
        )
    )(prompts)
    np.testing.assert_array_equal(found.tokens[:, :, 1], np.repeat(prompts, 2, axis=1))
    assert set(np.unique(found.tokens[:, :, 2:])) == {4, 5}
    assert VOCAB == 6


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"kind": "best"}, "decoding='best' is not one of greedy, sample, top_k, nucleus, beam"),
        ({"kind": "beam", "candidates": 2}, "candidates=2 with decoding=beam: must be 1"),
        ({"kind": "greedy", "candidates": 0}, "candidates=0"),
        ({"min_length": 21}, "min_length=21 and max_length=20"),
        ({"min_length": 0, "max_length": 0}, "max_length=0"),
        ({"temperature": 0.0}, "temperature=0.0 with decoding=nucleus must be above 0"),
        ({"kind": "top_k", "top_k": 0}, "top_k=0 must be 1 or more"),
    ],
    ids=str,
)
def test_refuses(fields, message):
    with pytest.raises(UsageError, match=message):
        Decoding(**fields)
