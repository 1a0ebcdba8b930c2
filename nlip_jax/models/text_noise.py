"""Hides parts of captions from the encoder that helps to decode them, on the devices.

Text infilling as of BART (Lewis et al., arXiv 1910.13461, section 2.2): spans of pieces give way to
one mask each, so that how many are missing has to be guessed too. The differences: spans have at
least one piece (1 + Poisson(mean - 1), where BART's empty ones only insert a mask), they never
touch, and together they hide just the share that was drawn.
"""

import math

import jax
import jax.numpy as jnp
import numpy as np

from nlip_jax.errors import UsageError
from nlip_jax.types import Array

_PAD = 0


def infill(
    tokens: Array,
    keys: Array,
    *,
    rate: tuple[float, float],
    mask_id: int,
    mean_span: float = 3.0,
    drop: float = 0.5,
) -> Array:
    """Replaces spans of each caption by masks, and some captions by nothing.

    What becomes of a row hangs on the row and its key alone.

    Args:
      tokens: `[b, l]` int32, rows of `[bos] pieces [eos] 0 0 ...`.
      keys: `[b]`, one random key an example, used for nothing else.
      rate: of each row, the share of its pieces to hide is drawn evenly between these two; it is
        rounded up or down to whole pieces such that it holds on average.
      mask_id: stands for a hidden span.
      mean_span: mean number of pieces in a span, before the last is cut to the share.
      drop: share of rows that become all padding.

    Returns:
      `[b, l]` int32, rows as before, shorter by what masks save.

    Raises:
      UsageError: numbers that are no shares, or spans of less than a piece.
    """
    low, high = rate
    if not 0 <= low <= high <= 1:
        raise UsageError(f"a rate of {low} to {high}: both must lie in [0, 1], the lower first")
    if not 0 <= drop <= 1:
        raise UsageError(f"drop={drop} is a share of the captions and must lie in [0, 1]")
    if mean_span < 1:
        raise UsageError(f"mean_span={mean_span}: a span has at least one piece, so take 1 or more")
    longer = jnp.asarray(_longer_than(tokens.shape[1], mean_span))

    def one(row: Array, key: Array) -> Array:
        # All at once, and such that longer padding changes none.
        drawn = jax.random.uniform(key, (len(row) + 2, 2))
        (share, rounding), (dropped, _) = drawn[0], drawn[1]
        pieces = jnp.maximum(jnp.sum(row != _PAD) - 2, 0)
        count = pieces * (low + (high - low) * share) + rounding
        count = jnp.minimum(count.astype(jnp.int32), pieces)  # a sum may round to one above
        lengths = 1 + jnp.sum(drawn[2:, :1] < longer, axis=1, dtype=jnp.int32)
        order = drawn[2:, 1]
        infilled = _replace(
            row, pieces=pieces, count=count, lengths=lengths, order=order, mask=mask_id
        )
        return jnp.where(dropped < drop, _PAD, infilled)

    return jax.vmap(one)(tokens, keys)


def _longer_than(length: int, mean_span: float) -> np.ndarray:
    """Probabilities that 1 + Poisson(mean - 1) exceeds 1, 2, ..., `[length]` float32, falling."""
    mean, below, found = mean_span - 1, 0.0, []
    for extra in range(length):
        below += math.exp(-mean + extra * math.log(mean) - math.lgamma(extra + 1)) if mean else 1
        found.append(max(0.0, 1 - below))
    return np.array(found, np.float32)


def _replace(
    row: Array, *, pieces: Array, count: Array, lengths: Array, order: Array, mask: int
) -> Array:
    """One row with spans at random places.

    Args:
      row: [l] int32, with `pieces` pieces.
      pieces: () int32.
      count: () int32, pieces to hide.
      lengths: [l] int32, of spans, as many as are needed for `count`.
      order: [l] random numbers below 1, of the places.
      mask: stands for a span.
    """
    size, place = len(row), jnp.arange(len(row))
    # Spans go into gaps: before the first piece that stays, between two of them, or behind the
    # last. Each gap takes one span at most; what is left without a gap is added to the last span.
    kept = pieces - count
    before = jnp.cumsum(lengths) - lengths
    spans = jnp.minimum(jnp.sum(before < count), kept + 1)
    lengths = jnp.where(place == spans - 1, count - before, lengths)
    # The gaps that come first in a random order, each with the span of its place in that order.
    rank = jnp.argsort(jnp.argsort(jnp.where(place <= kept, order, 1.0)))
    has_span = rank < spans
    span = jnp.where(has_span, lengths[rank], 0)
    masks_so_far = jnp.cumsum(has_span)
    # Place i is gap i and the piece that stays behind it, of those that stay; [bos] is first.
    to_piece, from_piece = place + masks_so_far, place + jnp.cumsum(span)
    nowhere = size
    new = jnp.zeros_like(row).at[0].set(row[0])
    new = new.at[jnp.where(has_span, to_piece, nowhere)].set(mask, mode="drop")
    source = row[jnp.minimum(1 + from_piece, size - 1)]
    new = new.at[jnp.where(place < kept, 1 + to_piece, nowhere)].set(source, mode="drop")
    last = jnp.sum(row != _PAD) - 1
    end = last - count + spans
    return new.at[jnp.where(last > 0, end, nowhere)].set(row[jnp.maximum(last, 0)], mode="drop")
