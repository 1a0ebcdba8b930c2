"""Scores of chosen pairs alone, on the devices."""

import functools
import math
from collections.abc import Callable

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from nlip_jax.evaluators.search import Score
from nlip_jax.methods.base import Features
from nlip_jax.sharding import from_all_hosts
from nlip_jax.types import Array

_MAX_PAIRS = 4096  # of a block on one device
_MAX_NUMBERS = 1 << 24  # of the features of a block: 64 MB


def score_pairs(
    queries: Features, candidates: Features, pairs: np.ndarray, *, score: Score, mesh: Mesh
) -> np.ndarray:
    """Scores each query with one candidate; all processes call it alike.

    The shape of a block depends on the sizes of the problem alone, so that a score is the same bits
    on any mesh.

    Args:
      queries: arrays `[q, ...]` on the host, the same on all processes.
      candidates: arrays `[c, ...]`, likewise.
      pairs: `[p, 2]` numbers of a query and of a candidate.
      score: how queries and candidates are scored.
      mesh: whose devices share the pairs.

    Returns:
      `[p]` float32; NaN where either is.
    """
    if not len(pairs):
        return np.zeros(0, np.float32)
    block = _block_size(queries, candidates, num_pairs=len(pairs))
    run, step, found = _compile(score, mesh), block * mesh.size, []
    by_device = NamedSharding(mesh, PartitionSpec(mesh.axis_names))
    for start in range(0, len(pairs), step):
        left, right = pairs[np.minimum(np.arange(start, start + step), len(pairs) - 1)].T
        sides = (
            {name: from_all_hosts(values[rows], by_device) for name, values in features.items()}
            for features, rows in ((queries, left), (candidates, right))
        )
        found.append(np.asarray(run(*sides)))
    return np.concatenate(found)[: len(pairs)]


@functools.lru_cache(maxsize=32)
def _compile(score: Score, mesh: Mesh) -> Callable[[Features, Features], Array]:
    def one(query: Features, candidate: Features) -> Array:
        sides = jax.tree.map(lambda values: values[None], (query, candidate))
        return score(*sides)[0, 0]

    split, whole = PartitionSpec(mesh.axis_names), PartitionSpec()
    spread = jax.shard_map(
        jax.vmap(one), mesh=mesh, in_specs=(split, split), out_specs=split, check_vma=False
    )
    return jax.jit(spread, out_shardings=NamedSharding(mesh, whole))


def _block_size(*sides: Features, num_pairs: int) -> int:
    """Pairs that one device scores at a time: a power of two."""
    numbers = sum(math.prod(v.shape[1:]) for features in sides for v in features.values())
    most = max(1, min(_MAX_PAIRS, _MAX_NUMBERS // max(numbers, 1)))
    return min(1 << (most.bit_length() - 1), 1 << (num_pairs - 1).bit_length())
