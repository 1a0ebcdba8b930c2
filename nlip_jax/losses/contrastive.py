"""Contrastive losses of the global batch: statistics of the rows, then targets, then the mean."""

import flax.struct
import jax
import jax.numpy as jnp
from jax import Array

from nlip_jax.losses.engine import Engine, RowStatistics, valid_pairs
from nlip_jax.losses.sides import Affine, Problem, Side
from nlip_jax.losses.targets import Targets, identity


@flax.struct.dataclass
class ContrastiveLoss:
    """A symmetric contrastive loss in nats, float32.

    Attributes:
        loss: [] mean of `pair_loss` over the valid pairs.
        pair_loss: [b] mean of the image's and the text's loss; 0 for pairs that are not valid.
        images: statistics of the images [b].
        texts: statistics of the texts [b].
    """

    loss: Array
    pair_loss: Array
    images: RowStatistics
    texts: RowStatistics


def contrast(
    engine: Engine,
    problem: Problem,
    images: Side,
    texts: Side,
    *,
    targets: Targets,
    scale: Array | float,
    bias: Array | float = 0.0,
) -> ContrastiveLoss:
    """Average the losses of image-to-text and text-to-image.

    Args:
        engine: how the matrix is gone through.
        problem: similarity and normaliser.
        images: [b]; image i and text i are a pair.
        texts: [b].
        targets: turns the statistics of rows into the loss of each [b], in nats:
            a function of `losses/targets.py`, with its weights bound.
        scale: [] inverse temperature.
        bias: [] of the logits.
    """
    statistics = engine.pairs(problem, images, texts, Affine(scale=scale, bias=bias))
    pair_loss = (targets(statistics[0]) + targets(statistics[1])) / 2
    valid = valid_pairs(images, texts)
    if valid is None:
        return ContrastiveLoss(jnp.mean(pair_loss), pair_loss, *statistics)
    pair_loss = jnp.where(valid, pair_loss, 0.0)
    mean = jnp.sum(pair_loss) / jnp.maximum(jnp.sum(valid), 1)
    return ContrastiveLoss(mean, pair_loss, *statistics)


def plain_pair_loss(found: ContrastiveLoss) -> Array:
    """The loss of each pair as if its own partner alone were right, [b] float32 in nats.

    Costs nothing beside a loss with other targets: the statistics are the same. No gradient.

    Args:
        found: statistics of a batch, whatever its targets were. Where duplicates count as
            positives, a pair that has some shares its probability with them and looks too noisy.
    """
    loss = (identity(found.images) + identity(found.texts)) / 2
    return jax.lax.stop_gradient(loss.astype(jnp.float32))
