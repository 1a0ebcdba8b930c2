"""Targets that another similarity predicts: momentum features (TCL), prototypes (ProtoCLIP).

Logits are linear in the candidates, so the whole of a soft target is one vector: with
t_ij = softmax_j(teacher), sum_j t_ij (scale q_i . c_j) = scale q_i . (sum_j t_ij c_j). The sum in
brackets is found candidate block by candidate block, and no matrix of targets ever exists.
"""

import functools

import jax
import jax.numpy as jnp
from jax import Array


@functools.partial(jax.jit, static_argnames="tile")
def soft_partner(
    teacher: Array,
    teacher_candidates: Array,
    candidates: Array,
    *,
    scale: Array | float,
    valid: Array | None = None,
    tile: int = 1024,
) -> Array:
    """What each query is pulled towards: candidates, averaged with the teacher's probabilities.

    Args:
        teacher: [b, e] float32 queries of the teacher.
        teacher_candidates: [n, e] what the teacher compares them with.
        candidates: [n, d] the candidates of the student.
        scale: [] inverse temperature of the teacher.
        valid: [n] bool, False on candidates that do not count; at least one does.
        tile: candidates at a time.

    Returns:
        [b, d] without gradient: the teacher, its scale and the candidates are constants.
    """
    teacher, teacher_candidates, candidates, scale = jax.lax.stop_gradient(
        (teacher, teacher_candidates, candidates, scale)
    )
    count, batch = len(candidates), len(teacher)
    valid = jnp.ones(count, bool) if valid is None else valid
    tiles = -(-count // min(tile, count))
    missing = -count % tiles

    def cut(values: Array) -> Array:
        padded = jnp.pad(values, [(0, missing)] + [(0, 0)] * (values.ndim - 1))
        return padded.reshape(tiles, -1, *values.shape[1:])

    # Whatever the features are kept in, such as a queue in bfloat16.
    wide = jnp.result_type(jnp.float32, teacher, teacher_candidates, candidates, scale)
    product = functools.partial(
        jnp.matmul, precision=jax.lax.Precision.HIGHEST, preferred_element_type=wide
    )

    def add(carry: tuple[Array, Array, Array], block: tuple[Array, Array, Array]):
        highest, weight, mean = carry
        theirs, ours, counted = block
        logits = jnp.where(counted[None], scale * product(teacher, theirs.T), -jnp.inf)
        new = jnp.maximum(highest, logits.max(1))
        shift = jnp.where(new == -jnp.inf, 0.0, new)
        kept, added = jnp.exp(highest - shift), jnp.exp(logits - shift[:, None])
        mean = kept[:, None] * mean + product(added, ours)
        return (new, kept * weight + added.sum(1), mean), None

    start = (
        jnp.full((batch,), -jnp.inf, wide),
        jnp.zeros((batch,), wide),
        jnp.zeros((batch, candidates.shape[1]), wide),
    )
    blocks = cut(teacher_candidates), cut(candidates), cut(valid)
    (_, weight, mean), _ = jax.lax.scan(add, start, blocks)
    return mean / weight[:, None]


def target_logit(
    query: Array,
    own: Array,
    partner: Array,
    *,
    scale: Array | float,
    soft_share: Array | float,
    bias: Array | float = 0.0,
) -> Array:
    """sum_j t_ij a_ij for t = soft_share * teacher + (1 - soft_share) * one-hot, as TCL mixes them.

    Args:
        query: [b, d] of the student.
        own: [b] logits of the right candidates (`RowStatistics.positive`).
        partner: [b, d] of `soft_partner`.
        scale: [] inverse temperature of the student.
        soft_share: [] share of the teacher's target: alpha of ALBEF and TCL; 1: all of it.
        bias: [] of the student's logits.

    Returns:
        [b], for `targets.expected`.
    """
    soft = scale * jnp.sum(query * partner, axis=-1) + bias
    return soft_share * soft + (1.0 - soft_share) * own
