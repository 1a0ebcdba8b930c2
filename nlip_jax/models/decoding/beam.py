"""Beam search as a pure function of fixed shapes, for any decoder with a cache.

The rules are those of the generation BLIP was published with (Li et al. 2022: 3 beams, at most 20
and at least 5 tokens; transformers 4.15). Of the 2k best continuations of an image's k beams, those
that end and are among the k best become captions; the k best others go on. A caption of n tokens,
[bos] and the prompt among them and [eos] not, scores its summed log-probability / n^length_penalty.
An image is done when it has k captions and none of its beams scores better now than the worst.
Nothing about an image depends on which others are in its batch.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from nlip_jax.errors import UsageError
from nlip_jax.models.decoding.controls import NO_CONTROLS, Controls, control
from nlip_jax.models.decoding.step import (
    Decoded,
    Step,
    check_min_length,
    first_rows,
    hold_back_end,
)
from nlip_jax.types import Array, PyTree


class _Search(NamedTuple):
    """Where a search stands; b images, k beams, l = max_length.

    Attributes:
      length: () int32, tokens of every beam.
      tokens: [b, k, l] int32 of the beams.
      sums: [b, k] float32 log-probabilities; -inf for beams that are not there.
      ended: [b, k, l] int32 captions found, the best first.
      scores: [b, k] float32 of these; -inf where there is none.
      done: [b] bool.
      cache: rows [b * k, ...], those of the beams.
    """

    length: Array
    tokens: Array
    sums: Array
    ended: Array
    scores: Array
    done: Array
    cache: PyTree


def beam_search(
    step: Step,
    cache: PyTree,
    *,
    batch_size: int,
    beams: int,
    max_length: int,
    min_length: int,
    bos: int,
    eos: int,
    pad: int,
    length_penalty: float = 1.0,
    controls: Controls = NO_CONTROLS,
    prompt: Array | tuple[int, ...] = (),
) -> Decoded:
    """Finds captions; to be called inside of a compiled function.

    Equal scores go to the earlier beam, then to the lower id. One beam is greedy search.

    Args:
      step: the decoder.
      cache: before the first token; every array has the rows [b * k, ...] of `repeat_rows`. What
        is the same for all beams of an image, its features, may be closed over by `step` instead.
      batch_size: images, b.
      beams: kept for each, k.
      max_length: tokens of a row, [bos], prompt and [eos] among them.
      min_length: tokens that stand before [eos] at least, [bos] and prompt among them.
      bos: first token.
      eos: ends a caption.
      pad: fills up rows.
      length_penalty: exponent of the length; above 0 favours longer captions.
      controls: which tokens may follow; sums are of log-probabilities as they leave them.
      prompt: `[p]` or `[b, p]` tokens that every caption begins with, behind [bos].

    Raises:
      UsageError: lengths or beams that do not fit.
    """
    if beams < 1:
        raise UsageError(f"beams={beams}: a search needs at least one beam")
    rows, given = first_rows(
        prompt, batch_size=batch_size, max_length=max_length, bos=bos, pad=pad
    )
    check_min_length(min_length, max_length)
    shape = (batch_size, beams, max_length)
    # By NumPy: the same numbers on every device.
    scales = jnp.asarray(np.maximum(np.arange(max_length + 1), 1.0) ** length_penalty, jnp.float32)
    tokens = jnp.broadcast_to(rows[:, None], shape)

    def read(position: Array, cache: PyTree) -> PyTree:
        return step(cache, _at(tokens, position), position)[1]

    first = jnp.where(jnp.arange(beams) == 0, 0.0, -jnp.inf)  # the beams are still all the same
    start = _Search(
        length=jnp.int32(given),
        tokens=tokens,
        sums=jnp.broadcast_to(first, shape[:2]).astype(jnp.float32),
        ended=jnp.full(shape, pad, jnp.int32),
        scores=jnp.full(shape[:2], -jnp.inf, jnp.float32),
        done=jnp.zeros(batch_size, bool),
        cache=jax.lax.fori_loop(0, given - 1, read, cache),
    )

    def goes_on(search: _Search) -> Array:
        return (search.length < max_length) & ~jnp.all(search.done)

    def advance(search: _Search) -> _Search:
        position = search.length - 1
        log_probs, cache = step(search.cache, _at(search.tokens, position), position)
        log_probs = log_probs.astype(jnp.float32)
        rows = search.tokens.reshape(-1, max_length)
        log_probs = control(controls, log_probs, rows, search.length)
        log_probs = hold_back_end(log_probs, search.length, min_length=min_length, eos=eos)
        log_probs = log_probs.reshape(batch_size, beams, -1)
        search = search._replace(cache=cache)
        return _extend(search, log_probs, eos=eos, scale=scales[search.length])

    found = jax.lax.while_loop(goes_on, advance, start)
    # Beams that were cut are captions too, but not of images that were done before.
    cut = found.sums / scales[found.length]
    cut = jnp.where(found.done[:, None], -jnp.inf, cut)
    ended, scores = _keep_best(found.ended, found.scores, found.tokens, cut)
    return Decoded(tokens=ended[:, 0], scores=scores[:, 0])


def _extend(search: _Search, log_probs: Array, *, eos: int, scale: Array) -> _Search:
    """One more token.

    Args:
      search: with the cache that has all tokens so far.
      log_probs: [b, k, v] of the next token.
      eos: ends a caption.
      scale: () float32 that the sums are divided by.
    """
    (batch_size, beams, vocab_size), length = log_probs.shape, search.length
    sums = (search.sums[:, :, None] + log_probs).reshape(batch_size, -1)
    # Each beam ends in one way, so k of these go on.
    best, place = jax.lax.top_k(sums, 2 * beams)
    parent, token = place // vocab_size, place % vocab_size
    rows = jnp.take_along_axis(search.tokens, parent[:, :, None], axis=1)
    rows = rows.at[:, :, length].set(token)

    ends = token == eos
    score = best / scale
    new = jnp.where(ends & (jnp.arange(2 * beams) < beams), score, -jnp.inf)
    ended, scores = _keep_best(search.ended, search.scores, rows, new)
    is_done = search.done | (scores[:, -1] >= score[:, 0]) & jnp.isfinite(scores[:, -1])

    going = jnp.argsort(ends, axis=1, stable=True)[:, :beams]
    parent = jnp.take_along_axis(parent, going, axis=1)
    flat = (jnp.arange(batch_size)[:, None] * beams + parent).reshape(-1)
    kept = search.done
    return _Search(
        length=length + 1,
        tokens=jnp.take_along_axis(rows, going[:, :, None], axis=1),
        sums=jnp.take_along_axis(best, going, axis=1),
        ended=jnp.where(kept[:, None, None], search.ended, ended),
        scores=jnp.where(kept[:, None], search.scores, scores),
        done=is_done,
        cache=jax.tree.map(lambda values: values[flat], search.cache),
    )


def _keep_best(
    tokens: Array, scores: Array, new_tokens: Array, new_scores: Array
) -> tuple[Array, Array]:
    """The k best of [b, k] captions and some new ones, sorted; of equals the older."""
    beams = scores.shape[1]
    best, place = jax.lax.top_k(jnp.concatenate([scores, new_scores], axis=1), beams)
    both = jnp.concatenate([tokens, new_tokens], axis=1)
    return jnp.take_along_axis(both, place[:, :, None], axis=1), best


def _at(tokens: Array, position: Array) -> Array:
    """The tokens of all beams at a position, [b * k]."""
    return jax.lax.dynamic_index_in_dim(tokens, position, axis=2, keepdims=False).reshape(-1)
