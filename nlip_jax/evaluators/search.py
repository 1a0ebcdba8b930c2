"""Exact search on the devices: the rank of the right answers and the best answers of every query.

Every device scores one block of queries against all candidates at a time; the block's scores are
ranked where they are and never leave it, so nothing of size queries x candidates exists anywhere.
The shape of a block depends on the sizes of the problem alone, never on the mesh: each row of
scores is the same bits on any number of devices and processes, and so are the ranks.

A wrong candidate with the same score as the best right one comes before it: features that collapse
to one point earn nothing. NaN is no score: it is neither right nor before one that is.
"""

import dataclasses
import functools
import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from nlip_jax.methods.base import Features
from nlip_jax.methods.similarities import FeatureSimilarity
from nlip_jax.sharding import from_all_hosts
from nlip_jax.types import Array

# (queries [q, ...], candidates [c, ...]) -> scores [q, c]
Score = Callable[[Features, Features], Array]

_MAX_QUERIES = 1024  # of a block
_MAX_SCORES = 1 << 24  # of a block: 64 MB
_MIN_QUERIES = 16  # of a block, however many candidates there are
_MAX_TOKEN_SCORES = 1 << 24  # of the tokens of a block and of the candidates met at a time


@dataclasses.dataclass(frozen=True)
class ImagesToTexts:
    """Scores texts as images see them."""

    similarity: FeatureSimilarity

    def __call__(self, queries: Features, candidates: Features) -> Array:
        """Images `[q, ...]` and texts `[c, ...]` -> `[q, c]`."""
        return self.similarity.score(queries, candidates).per_row


@dataclasses.dataclass(frozen=True)
class TextsToImages:
    """Scores images as texts see them."""

    similarity: FeatureSimilarity

    def __call__(self, queries: Features, candidates: Features) -> Array:
        """Texts `[q, ...]` and images `[c, ...]` -> `[q, c]`."""
        return self.similarity.score(candidates, queries).per_column.T


def cosine(queries: Features, candidates: Features) -> Array:
    """Scores vectors of one kind, `{"x": [q, d]}` of length 1, by their dot product."""
    return jnp.matmul(queries["x"], candidates["x"].T, precision=jax.lax.Precision.HIGHEST)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Found:
    """What a search found.

    Attributes:
      rank: `[q]` int32, how many wrong candidates come before the best right one; all wrong ones
        where it has no score, all candidates where there is no right one. None unless asked for.
      best: `[q, k]` int32, the best candidates in falling order; equal scores by lower id, -1 where
        there is no score.
      scores: `[q, k]` float32 of these; NaN where there is none.
    """

    rank: np.ndarray | None
    best: np.ndarray
    scores: np.ndarray


def search(
    queries: Features,
    candidates: Features,
    *,
    score: Score,
    mesh: Mesh,
    right: np.ndarray | None = None,
    excluded: np.ndarray | None = None,
    top: int = 0,
    average: int = 1,
) -> Found:
    """Scores all candidates for every query, block by block; all processes call it alike.

    Args:
      queries: arrays `[q, ...]` on the host, the same on all processes.
      candidates: arrays `[c * average, ...]`, likewise; they have to fit on every device.
      score: how a block is scored; the same function is compiled once.
      mesh: whose devices share the queries.
      right: `[q, r]` ids of the right candidates, filled up with -1; None where no rank is wanted.
      excluded: `[q]` id of one candidate that does not take part (the query itself), or -1.
      top: how many of the best candidates are wanted.
      average: so many rows of `candidates` in turn are one candidate, and its score is their mean.
    """
    num_queries, num_rows = _length(queries), _length(candidates)
    num_candidates = num_rows // average
    top = min(top, num_candidates)
    block, tile = _block_sizes(queries, candidates)
    padded = {name: _pad_rows(values, tile) for name, values in candidates.items()}
    everywhere = NamedSharding(mesh, PartitionSpec())
    on_devices = {name: from_all_hosts(values, everywhere) for name, values in padded.items()}
    run = _compile(score, mesh, tile=tile, num_rows=num_rows, average=average, top=top)

    if right is None:
        asked = np.full((num_queries, 1), -1, np.int32)
    else:
        asked = np.sort(np.asarray(right, np.int32).reshape(num_queries, -1), axis=1)
        asked[:, 1:][asked[:, 1:] == asked[:, :-1]] = -1  # what stands there twice counts once
    left_out = np.full(num_queries, -1, np.int32) if excluded is None else excluded
    by_device = NamedSharding(mesh, PartitionSpec(mesh.axis_names))
    step, parts = block * mesh.size, []
    for start in range(0, num_queries, step):
        rows = np.minimum(np.arange(start, start + step), num_queries - 1)
        part = {name: from_all_hosts(values[rows], by_device) for name, values in queries.items()}
        result = run(
            part,
            on_devices,
            from_all_hosts(asked[rows], by_device),
            from_all_hosts(left_out[rows].astype(np.int32), by_device),
        )
        parts.append(jax.tree.map(np.asarray, result))
    rank, best, scores = (np.concatenate(found)[:num_queries] for found in zip(*parts, strict=True))
    return Found(rank=None if right is None else rank, best=best, scores=scores)


@functools.lru_cache(maxsize=32)
def _compile(
    score: Score, mesh: Mesh, *, tile: int, num_rows: int, average: int, top: int
) -> Callable:
    split, whole = PartitionSpec(mesh.axis_names), PartitionSpec()
    one_block = functools.partial(
        _search_block, score=score, tile=tile, num_rows=num_rows, average=average, top=top
    )
    spread = jax.shard_map(
        one_block,
        mesh=mesh,
        in_specs=(split, whole, split, split),
        out_specs=split,
        check_vma=False,
    )
    # On every host whole: the results are small.
    return jax.jit(spread, out_shardings=NamedSharding(mesh, whole))


def _search_block(
    queries: Features,
    candidates: Features,
    right: Array,
    excluded: Array,
    *,
    score: Score,
    tile: int,
    num_rows: int,
    average: int,
    top: int,
) -> tuple[Array, Array, Array]:
    """Rank, best candidates and their scores of one block of queries on one device."""
    scores = _score_tiles(queries, candidates, score=score, tile=tile)[:, :num_rows]
    if average > 1:
        scores = scores.reshape(len(scores), -1, average).mean(-1)
    ids = jnp.arange(scores.shape[1], dtype=jnp.int32)
    is_scored = ~jnp.isnan(scores) & (ids != excluded[:, None])
    scores = jnp.where(is_scored, scores, -jnp.inf)

    is_asked = right >= 0
    of_right = jnp.take_along_axis(scores, jnp.maximum(right, 0), axis=1)
    of_right = jnp.where(is_asked, of_right, -jnp.inf)
    target = of_right.max(1, keepdims=True)
    before = (scores >= target).sum(1) - (is_asked & (of_right >= target)).sum(1)
    has_right = is_asked.any(1)
    rank = jnp.where(has_right, before, scores.shape[1]).astype(jnp.int32)

    best_scores, best = jax.lax.top_k(scores, top)
    is_found = best_scores > -jnp.inf
    return (
        rank,
        jnp.where(is_found, best, -1).astype(jnp.int32),
        jnp.where(is_found, best_scores, jnp.nan),
    )


def _score_tiles(
    queries: Features, candidates: Features, *, score: Score, tile: int
) -> Array:
    """Scores [q, c] of a block, some candidates at a time where all would not fit."""
    num_tiles = _length(candidates) // tile
    if num_tiles == 1:
        return score(queries, candidates)
    tiles = jax.tree.map(
        lambda values: values.reshape(num_tiles, tile, *values.shape[1:]), candidates
    )
    scores = jax.lax.map(lambda part: score(queries, part), tiles)
    return jnp.moveaxis(scores, 0, 1).reshape(scores.shape[1], -1)


def _block_sizes(queries: Features, candidates: Features) -> tuple[int, int]:
    """Queries of a block, and candidates scored at a time; powers of two, or all of them."""
    num_queries, num_rows = _length(queries), _length(candidates)
    block = _power_of_two(max(_MIN_QUERIES, min(_MAX_QUERIES, _MAX_SCORES // num_rows)))
    tokens = _tokens(queries) * _tokens(candidates)
    if tokens > 1:  # all tokens of a query may meet all tokens of a candidate
        block = min(block, max(1, _power_of_two(math.isqrt(_MAX_TOKEN_SCORES // tokens))))
        tile = max(1, _MAX_TOKEN_SCORES // (tokens * block))
    else:
        tile = num_rows
    # A small problem needs no block of the largest size, and no more is computed than padding to
    # a power of two costs.
    block = min(block, 1 << (num_queries - 1).bit_length())
    return block, min(tile, num_rows)


def _power_of_two(number: int) -> int:
    """The largest that is not larger."""
    return 1 << (number.bit_length() - 1)


def _tokens(features: Features) -> int:
    return math.prod(max(value.shape[1:-1] for value in features.values()))


def _length(features: Features) -> int:
    return len(next(iter(features.values())))


def _pad_rows(values: np.ndarray, multiple: int) -> np.ndarray:
    """Repeats the last row until the number of rows is a multiple."""
    missing = -len(values) % multiple
    return np.concatenate([values, np.repeat(values[-1:], missing, axis=0)]) if missing else values
