"""Softmax contrastive losses over the global batch: statistics of the rows, then targets.

Every softmax loss of this package depends on a row of logits through three numbers. An engine that
never holds the whole matrix has to produce these three, and nothing else, to serve all of them.
"""

from collections.abc import Callable

import flax.struct
import jax
import jax.numpy as jnp
from jax import Array

from nlip_jax.losses.similarity import Logits


@flax.struct.dataclass
class RowStatistics:
    """What a softmax loss needs to know of each row i of logits a_ij, all float32.

    Attributes:
        log_normaliser: [b] log sum_j exp(a_ij).
        positive: [b] a_ii.
        total: [b] sum_j a_ij.
        columns: [] number of columns that count.
    """

    log_normaliser: Array
    positive: Array
    total: Array
    columns: Array


@flax.struct.dataclass
class ContrastiveLoss:
    """A symmetric contrastive loss in nats, float32.

    Attributes:
        loss: [] mean of `pair_loss` over the valid pairs.
        pair_loss: [b] mean of the image's and the text's loss; 0 for pairs that are not valid.
    """

    loss: Array
    pair_loss: Array


Targets = Callable[[RowStatistics], Array]


def row_statistics(logits: Array, valid: Array | None = None) -> RowStatistics:
    """Reduce dense logits to statistics of their rows.

    Args:
        logits: [b, b], the positives on the diagonal.
        valid: [b] bool; a pair that is not valid is no candidate for the others, and its own row
            holds finite numbers without meaning, even where its logits are not finite.
    """
    logits = logits.astype(jnp.float32)
    own = jnp.eye(logits.shape[0], dtype=bool)
    if valid is None:
        valid = jnp.ones(logits.shape[:1], bool)
    counted = valid[:, None] & valid[None, :]
    logits = jnp.where(counted, logits, 0.0)
    return RowStatistics(
        # A row keeps its own column, for a sum over nothing would be -inf.
        log_normaliser=jax.nn.logsumexp(logits, axis=1, where=valid[None, :] | own),
        positive=jnp.sum(logits, axis=1, where=own),
        total=jnp.sum(logits, axis=1),
        columns=jnp.sum(valid, dtype=jnp.float32),
    )


def softmax_contrastive(
    logits: Logits, targets: Targets, valid: Array | None = None
) -> ContrastiveLoss:
    """Average the cross entropies of image-to-text and text-to-image (InfoNCE and its relatives).

    Args:
        logits: similarities of the global batch, [b, b] each way.
        targets: turns the statistics of the rows into the loss of each row [b], in nats:
            a function of `losses/targets.py`, with its weights bound.
        valid: [b] bool, False on rows that only fill up a batch; features of such rows must be
            finite for finite gradients of the features.
    """
    image_loss = targets(row_statistics(logits.per_image, valid))
    text_loss = targets(row_statistics(logits.per_text, valid))
    pair_loss = (image_loss + text_loss) / 2
    if valid is None:
        return ContrastiveLoss(loss=jnp.mean(pair_loss), pair_loss=pair_loss)
    pair_loss = jnp.where(valid, pair_loss, 0.0)
    count = jnp.maximum(jnp.sum(valid), 1)
    return ContrastiveLoss(loss=jnp.sum(pair_loss) / count, pair_loss=pair_loss)
