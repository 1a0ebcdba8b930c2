"""Captions token by token, likeliest or drawn, for any decoder with a cache.

Rules and conventions are those of `beam.py`; greedy decoding finds what a search with one beam
does. A row's random numbers come from its key and the position alone, so nothing about it depends
on which others are in its batch.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from nlip_jax.errors import UsageError
from nlip_jax.models.decoding.controls import NO_CONTROLS, Controls, control
from nlip_jax.models.decoding.step import (
    Decoded,
    Step,
    check_min_length,
    first_rows,
    hold_back_end,
)
from nlip_jax.models.dropout import fold
from nlip_jax.types import Array, PyTree


class _Rows(NamedTuple):
    """Where the rows stand; r of them, l = max_length.

    Attributes:
      length: () int32, tokens of every row, those behind its end among them.
      tokens: [r, l] int32.
      counts: [r] int32, tokens before [eos].
      sums: [r] float32 log-probabilities of those that were chosen.
      done: [r] bool.
      cache: rows [r, ...].
    """

    length: Array
    tokens: Array
    counts: Array
    sums: Array
    done: Array
    cache: PyTree


def sample(
    step: Step,
    cache: PyTree,
    *,
    batch_size: int,
    keys: Array | None,
    max_length: int,
    min_length: int,
    bos: int,
    eos: int,
    pad: int,
    temperature: float = 1.0,
    top_k: int = 0,
    top_p: float = 1.0,
    controls: Controls = NO_CONTROLS,
    prompt: Array | tuple[int, ...] = (),
) -> Decoded:
    """Makes captions; to be called inside of a compiled function.

    Args:
      step: the decoder; gives logits or log-probabilities.
      cache: before the first token; every array has rows `[r, ...]`.
      batch_size: rows, r.
      keys: `[r]`, one random key a row, used for nothing else; None where nothing is drawn.
      max_length: tokens of a row, [bos], prompt and [eos] among them.
      min_length: tokens that stand before [eos] at least, [bos] and prompt among them.
      bos: first token.
      eos: ends a caption; follows, too, where the controls leave no token.
      pad: fills up rows.
      temperature: divides the log-probabilities that are drawn from; 0: the likeliest token, of
        equals the lowest id.
      top_k: likeliest tokens that are drawn from; 0: all.
      top_p: of these, the fewest likeliest whose probabilities reach this sum (nucleus sampling,
        arXiv 1904.09751, section 3.1); 1: all.
      controls: which tokens may follow.
      prompt: `[p]` or `[r, p]` tokens that every caption begins with, behind [bos].

    Returns:
      Captions; a score is the sum of the log-probabilities that the decoder gave the chosen tokens,
      whatever they were drawn from, over the number of tokens of the row before [eos].

    Raises:
      UsageError: lengths that do not fit, or numbers that choose nothing.
    """
    tokens, given = first_rows(
        prompt, batch_size=batch_size, max_length=max_length, bos=bos, pad=pad
    )
    check_min_length(min_length, max_length)
    _check(temperature=temperature, top_k=top_k, top_p=top_p, keys=keys)

    def read(position: Array, cache: PyTree) -> PyTree:
        return step(cache, _at(tokens, position), position)[1]

    start = _Rows(
        length=jnp.int32(given),
        tokens=tokens,
        counts=jnp.full(batch_size, given, jnp.int32),
        sums=jnp.zeros(batch_size, jnp.float32),
        done=jnp.zeros(batch_size, bool),
        cache=jax.lax.fori_loop(0, given - 1, read, cache),
    )

    def goes_on(rows: _Rows) -> Array:
        return (rows.length < max_length) & ~jnp.all(rows.done)

    def advance(rows: _Rows) -> _Rows:
        position = rows.length - 1
        logits, cache = step(rows.cache, _at(rows.tokens, position), position)
        logits = logits.astype(jnp.float32)
        # Normalised only for a penalty and for the score, which not everybody asks for.
        normaliser = jax.nn.logsumexp(logits, axis=1)
        log_probs = logits - normaliser[:, None] if controls.penalises else logits
        allowed = control(controls, log_probs, rows.tokens, rows.length)
        allowed = hold_back_end(allowed, rows.length, min_length=min_length, eos=eos)
        token = choose(
            allowed, fold(keys, position), temperature=temperature, top_k=top_k, top_p=top_p
        )
        token = jnp.where(jnp.isfinite(jnp.max(allowed, axis=1)), token, eos)
        chosen = jnp.take_along_axis(logits, token[:, None], axis=1)[:, 0] - normaliser
        token = jnp.where(rows.done, pad, token)
        done = rows.done | (token == eos)
        return _Rows(
            length=rows.length + 1,
            tokens=rows.tokens.at[:, rows.length].set(token),
            counts=rows.counts + ~done,
            sums=rows.sums + jnp.where(rows.done, 0.0, chosen),
            done=done,
            cache=cache,
        )

    found = jax.lax.while_loop(goes_on, advance, start)
    return Decoded(tokens=found.tokens, scores=found.sums / found.counts)


def choose(
    log_probs: Array, keys: Array | None, *, temperature: float, top_k: int, top_p: float
) -> Array:
    """One token a row; see `sample`.

    Args:
      log_probs: `[r, v]` float32, up to a constant for each row; -inf is never drawn.
      keys: `[r]`; None with temperature 0.
      temperature: as of `sample`.
      top_k: as of `sample`.
      top_p: as of `sample`.

    Returns:
      `[r]` int32.
    """
    if temperature == 0:
        return _first_largest(log_probs)
    vocab_size = log_probs.shape[1]
    log_probs = log_probs / temperature
    # The largest of log-probabilities with Gumbel noise is a draw. Each id has noise of its own, so
    # that rounding which makes two tokens change places changes no draw.
    noise = jax.vmap(lambda key: jax.random.gumbel(key, (vocab_size,)))(keys)
    if not top_k and top_p >= 1:
        return _first_largest(log_probs + noise)
    best, ids = jax.lax.top_k(log_probs, min(top_k or vocab_size, vocab_size))
    share = jax.nn.softmax(best, axis=1)
    before = jnp.cumsum(share, axis=1) - share  # 0 for the first, which always stays
    drawn = jnp.where(before < top_p, best + jnp.take_along_axis(noise, ids, axis=1), -jnp.inf)
    place = _first_largest(drawn)
    return jnp.take_along_axis(ids, place[:, None], axis=1)[:, 0]


def _first_largest(values: Array) -> Array:
    """`argmax` of [r, v]; a quarter of its time on CPUs, where this takes two vectorised passes."""
    is_largest = values == jnp.max(values, axis=1, keepdims=True)
    count = values.shape[1]
    first = jnp.min(jnp.where(is_largest, jnp.arange(count, dtype=jnp.int32), count), axis=1)
    return jnp.minimum(first, count - 1)  # of NaN, the last


def _at(tokens: Array, position: Array) -> Array:
    return jax.lax.dynamic_index_in_dim(tokens, position, axis=1, keepdims=False)


def _check(*, temperature: float, top_k: int, top_p: float, keys: Array | None) -> None:
    if temperature < 0:
        raise UsageError(f"temperature={temperature} must be 0, the likeliest token, or more")
    if top_k < 0:
        raise UsageError(f"top_k={top_k} is a number of tokens; 0 draws from all")
    if not 0 < top_p <= 1:
        raise UsageError(f"top_p={top_p} is a sum of probabilities in (0, 1]; 1 draws from all")
    if temperature and keys is None:
        raise UsageError(f"temperature={temperature} draws tokens, which needs random keys")
