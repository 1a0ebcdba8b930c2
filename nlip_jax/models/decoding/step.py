"""What all ways to decode share: the decoder's step, rows of tokens, and what they give back."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from nlip_jax.errors import UsageError
from nlip_jax.types import Array, PyTree

# (cache, tokens [r] int32, their position () int32) -> log-probabilities of the next tokens [r, v],
# or logits where that is said, and the cache with these tokens in it. Rows of one image, beams or
# candidates, stand side by side.
Step = Callable[[PyTree, Array, Array], tuple[Array, PyTree]]


class Decoded(NamedTuple):
    """Captions; `[b]` is `[b, n]` where an image has several.

    Attributes:
      tokens: `[b, max_length]` int32: [bos], the prompt, the caption, [eos] where it ended before
        max_length, then padding.
      scores: `[b]` float32.
    """

    tokens: Array
    scores: Array


def normalised(step: Step) -> Step:
    """A step that gives log-probabilities, of one that gives logits."""

    def run(cache: PyTree, tokens: Array, position: Array) -> tuple[Array, PyTree]:
        logits, cache = step(cache, tokens, position)
        return jax.nn.log_softmax(logits.astype(jnp.float32)), cache

    return run


def repeat_rows(tree: PyTree, count: int) -> PyTree:
    """Each row `[b, ...]` of every array `count` times in turn, `[b * count, ...]`."""
    if count == 1:
        return tree
    return jax.tree.map(lambda rows: jnp.repeat(rows, count, axis=0), tree)


def first_rows(
    prompt: Array | tuple[int, ...], *, batch_size: int, max_length: int, bos: int, pad: int
) -> tuple[Array, int]:
    """Rows before the first token is decoded.

    Args:
      prompt: `[p]` or `[b, p]` tokens that stand behind [bos].
      batch_size: b.
      max_length: of the rows.
      bos: first token.
      pad: fills up.

    Returns:
      `[b, max_length]` int32, and how many tokens of each are given, 1 + p.

    Raises:
      UsageError: there is no room behind the prompt.
    """
    prompt = jnp.asarray(prompt, jnp.int32)
    given = 1 + prompt.shape[-1]
    if not given < max_length:
        raise UsageError(
            f"max_length={max_length} has no room behind [bos] and a prompt of {given - 1} tokens"
        )
    rows = jnp.full((batch_size, max_length), pad, jnp.int32)
    return rows.at[:, 0].set(bos).at[:, 1:given].set(prompt), given


def check_min_length(min_length: int, max_length: int) -> None:
    """Refuses rows that would have to be longer than they can be.

    Raises:
      UsageError: telling both lengths.
    """
    if min_length > max_length:
        raise UsageError(f"min_length={min_length} must be at most max_length={max_length}")


def hold_back_end(log_probs: Array, length: Array, *, min_length: int, eos: int) -> Array:
    """No [eos] behind fewer than `min_length` tokens: `[..., v]` to `[..., v]`."""
    too_short = (jnp.arange(log_probs.shape[-1]) == eos) & (length < min_length)
    return jnp.where(too_short, -jnp.inf, log_probs)
