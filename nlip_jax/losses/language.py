"""How well a decoder predicts captions, without the logits of all words at once."""

import jax
import jax.numpy as jnp
from jax import Array

from nlip_jax.losses.similarity import product

MAX_LOGITS = 1 << 26  # of the global batch, held at a time: 256 MiB over all devices


def caption_loss(
    hidden: Array,
    table: Array,
    targets: Array,
    *,
    label_smoothing: float = 0.1,
    dtype: str | None = None,
    chunk: int | None = None,
) -> Array:
    """Cross entropy of the next token with smoothed labels (L_LM of NLIP; 0.1 as in BLIP).

    A target gets 1 - s + s / v, every other of the v tokens s / v. Positions are gone through in
    chunks, whose logits the backward pass computes again: b * v of them for each position of a
    chunk. Rows never meet, so they may be split over devices.

    Args:
        hidden: [b, l, w] of a decoder, after its final norm.
        table: [v, w] embeddings of the tokens; a logit is a dot product with one.
        targets: [b, l] int32, the tokens to predict; 0, padding, is none.
        label_smoothing: s, in [0, 1).
        dtype: that both factors of a logit are rounded to, as by `similarity.dot`; None: as they
            come. Logits are float32 all the same.
        chunk: positions at a time; None: as many as stay within `MAX_LOGITS`, at least one.

    Returns:
        [b] float32, nats: the mean over a row's targets; 0 for a row without any.
    """
    batch_size, length = targets.shape
    if chunk is None:
        chunk = MAX_LOGITS // max(1, batch_size * len(table))
    chunk = min(max(1, chunk), max(1, length))

    def losses(hidden: Array, targets: Array) -> Array:
        logits = product("blw,vw->blv", dtype, hidden, table)
        # A comparison rather than a gather: the table's tokens may be split over devices too.
        is_target = jnp.arange(logits.shape[-1]) == targets[..., None]
        of_target = jnp.sum(logits, axis=-1, where=is_target)
        expected = (1 - label_smoothing) * of_target + label_smoothing * jnp.mean(logits, axis=-1)
        loss = jax.nn.logsumexp(logits, axis=-1) - expected
        return jnp.sum(loss, axis=-1, where=targets != 0)

    if chunk == length:
        total = losses(hidden, targets)
    else:
        # A scan keeps XLA from merging the two computations of the logits by itself.
        again = jax.checkpoint(losses, prevent_cse=False)
        parts = _cut(hidden, chunk), _cut(targets, chunk)
        start = jnp.zeros(batch_size, jnp.promote_types(hidden.dtype, jnp.float32))
        total, _ = jax.lax.scan(lambda sums, part: (sums + again(*part), None), start, parts)
    return total / jnp.maximum(jnp.sum(targets != 0, axis=-1), 1)


def _cut(values: Array, chunk: int) -> Array:
    """[b, l, ...] to [l / chunk, b, chunk, ...], filled up by zeros."""
    missing = -values.shape[1] % chunk
    values = jnp.pad(values, [(0, 0), (0, missing)] + [(0, 0)] * (values.ndim - 2))
    parts = values.reshape(values.shape[0], -1, chunk, *values.shape[2:])
    return jnp.moveaxis(parts, 1, 0)
