"""The captioner on a real model: what it shares between beams, keeps short or spreads is no change.

Beside `test_nlip_whole.py`, which looks at what becomes of the captions.
"""

import dataclasses
import functools

import jax
import numpy as np
import pytest
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P
from tiny import mesh_of

from nlip_jax.commands.benchmarks.caption_setting import BOS, EOS, PAD, Setting, draw_variables
from nlip_jax.errors import UsageError
from nlip_jax.methods.base import scale_image
from nlip_jax.methods.captioner import Captioner
from nlip_jax.methods.similarities import DOT
from nlip_jax.models.decoding.decoding import Decoding, decode

SETTING = Setting(
    batch_size=8,
    image_size=8,
    patch_size=4,
    width=16,
    depth=1,
    vocab_size=30,
    context_length=9,
    concept_length=4,
)
MODEL = SETTING.model()
VARIABLES = draw_variables(MODEL, std=0.5)
_, IMAGE, CONCEPTS = jax.tree.map(np.asarray, SETTING.inputs())
KEYS = jax.random.split(jax.random.key(1), SETTING.batch_size)
CAPTIONS = {"min_length": 2, "max_length": 5, "no_repeat_ngram": 1}

BEAM = Decoding(kind="beam", **CAPTIONS)


@functools.partial(jax.jit, static_argnames=("decoding", "min_confidence"))
def captions(decoding, image, concepts, keys, *, min_confidence=0.0):
    captioner = Captioner(
        model=MODEL,
        similarity=DOT,
        decoding=decoding,
        bos=BOS,
        eos=EOS,
        prompt=(7,),
        context_length=SETTING.context_length,
        min_confidence=min_confidence,
    )
    return captioner(VARIABLES, image, concepts, keys)


@functools.partial(jax.jit, static_argnames="decoding")
def plainly(decoding, image, concepts, keys):
    """All of the cache for every beam, with room for the longest row; the first caption found."""
    apply = functools.partial(MODEL.apply, VARIABLES)
    seen = apply(scale_image(image), None, method="encode_masked_image")
    found = decode(
        decoding,
        functools.partial(apply, method="caption_step"),
        apply(seen["image_memory"], concepts, method="start_caption"),
        batch_size=len(image),
        keys=keys,
        bos=BOS,
        eos=EOS,
        pad=PAD,
        prompt=(7,),
    )
    return found


def test_what_is_shared_and_kept_short_is_no_change():
    rows = np.asarray(captions(BEAM, IMAGE, CONCEPTS, KEYS))
    expected = np.asarray(plainly(BEAM, IMAGE, CONCEPTS, KEYS).tokens[:, 0])
    assert len(np.unique(rows, axis=0)) > 2
    for row, plain in zip(rows, expected, strict=True):
        pieces = [token for token in plain[2:] if token > EOS]
        assert 2 <= len(pieces) <= 5
        row_length = SETTING.context_length
        assert row.tolist() == [BOS, *pieces, EOS] + [PAD] * (row_length - len(pieces) - 2)


@pytest.mark.parametrize("kind, candidates", [("beam", 1), ("nucleus", 1), ("nucleus", 3)])
def test_captions_that_are_not_sure_enough_are_left_out(kind, candidates):
    decoding = Decoding(kind=kind, candidates=candidates, **CAPTIONS)
    one = dataclasses.replace(decoding, candidates=1)
    sure = np.exp(np.asarray(plainly(one, IMAGE, CONCEPTS, KEYS).scores)[:, 0])
    middle = float(np.sort(sure)[[1, 2]].mean())
    rows = np.asarray(captions(decoding, IMAGE, CONCEPTS, KEYS, min_confidence=middle))
    if candidates == 1:
        every = np.asarray(captions(decoding, IMAGE, CONCEPTS, KEYS))
        np.testing.assert_array_equal(rows, np.where(sure[:, None] >= middle, every, PAD))
    kept = rows[:, 0] == BOS  # of several, one of those that are sure
    assert kept[sure >= middle].all() and not rows[~kept].any()
    assert not np.any(captions(decoding, IMAGE, CONCEPTS, KEYS, min_confidence=0.999))


def test_any_batch_any_mesh_and_one_compile():
    decoding = Decoding(kind="nucleus", candidates=2, **CAPTIONS)
    whole = np.asarray(captions(decoding, IMAGE, CONCEPTS, KEYS))
    compiled = captions._cache_size()
    turned = captions(decoding, IMAGE[::-1], CONCEPTS[::-1], KEYS[::-1])
    np.testing.assert_array_equal(turned[::-1], whole)
    assert captions._cache_size() == compiled
    mesh = mesh_of(8)
    rows = NamedSharding(mesh, P(mesh.axis_names))
    spread = captions(decoding, *jax.device_put((IMAGE, CONCEPTS, KEYS), rows))
    np.testing.assert_array_equal(spread, whole)
    assert spread.sharding.is_equivalent_to(rows, 2)


def test_concepts_are_seen():
    own = captions(BEAM, IMAGE, CONCEPTS, KEYS)
    others = captions(BEAM, IMAGE, np.roll(CONCEPTS, 1, axis=0), KEYS)
    assert (np.asarray(own) != np.asarray(others)).any()


def test_room_for_more_than_the_model_reads_is_refused():
    memory = jax.ShapeDtypeStruct((1, 4, SETTING.width), np.float32)
    start = functools.partial(MODEL.apply, VARIABLES, method="start_caption", length=10)
    with pytest.raises(UsageError, match="length=10 of rows that are decoded must lie in 1 to"):
        jax.eval_shape(lambda memory: start(memory, None), memory)
