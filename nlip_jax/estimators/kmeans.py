"""k-means on the devices: Lloyd's iterations over rows that the devices share.

All iterations are one compiled loop. Rows meet the centroids block by block, so neither rows x
centroids nor more than a chunk of distances exists; sums and counts of the devices' rows are added
up by `psum`. The rows' mean is taken off, and centroids move by the mean difference of their rows:
float32 sums then hold small numbers. Sums of another number of devices differ in their last bits,
and a row half way between two centroids may then fall to the other.
"""

import dataclasses
import functools

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from nlip_jax.errors import UsageError
from nlip_jax.estimators.rows import Rows, place, replicate

_MAX_CENTROIDS = 2048  # of a block
_MAX_SCORES = 1 << 22  # of a chunk of rows and a block of centroids: 16 MB
_MAX_RESEEDED = 256  # centroids in an iteration
_NO_LABEL = np.iinfo(np.int32).max
_PRECISION = jax.lax.Precision.HIGHEST


@dataclasses.dataclass(frozen=True, kw_only=True)
class Clusters:
    """The best of all restarts.

    Attributes:
        centroids: [k, d] float32, the means of their rows.
        labels: [n] int32, the nearest centroid of every row; the lower one of two as near.
        counts: [k] int32 rows of each; 0 where there are fewer different rows than centroids.
        objective: sum of the rows' squared distances to their centroids.
        iterations: of Lloyd, in the restart that was kept.
        converged: whether no row changed its centroid any more.
    """

    centroids: np.ndarray
    labels: np.ndarray
    counts: np.ndarray
    objective: float
    iterations: int
    converged: bool


@flax.struct.dataclass
class _State:
    """Where Lloyd's iterations stand on one device.

    Attributes:
        centroids: [k, d], the same on all devices.
        labels: [chunks, c] of the device's rows, by the centroids before the last move.
        changed: [] int32 rows of all devices with another label, and centroids put elsewhere.
        iterations: [] int32.
    """

    centroids: Array
    labels: Array
    changed: Array
    iterations: Array


def kmeans(
    x: np.ndarray,
    *,
    num_clusters: int,
    mesh: Mesh,
    seed: int = 0,
    init: str = "random",
    num_iterations: int = 100,
    num_restarts: int = 1,
    start: np.ndarray | None = None,
) -> Clusters:
    """Cluster rows by their Euclidean distances; all processes call it alike.

    A centroid without rows moves to the row that is farthest from its own centroid, the first such
    centroid to the farthest row and so on, at most 256 in an iteration.

    Args:
        x: [n, d] finite floats, the same on all processes.
        num_clusters: k.
        mesh: whose devices share the rows.
        seed: of the first centroids.
        init: "random" takes k of the rows (as FAISS), "k-means++" draws one after the other by the
            squared distance to those that were drawn (Arthur & Vassilvitskii, 2007).
        num_iterations: at most, in each restart.
        num_restarts: runs from other first centroids; the lowest objective is kept, the earlier
            one of two as low.
        start: [k, d] first centroids instead of `init`; then there is one run.

    Raises:
        UsageError: more clusters than rows, an unknown `init`, or rows that are not finite.
    """
    if not 1 <= num_clusters <= len(x):
        raise UsageError(f"num_clusters={num_clusters}: must lie in [1, {len(x)}], the rows")
    if init not in INITS:
        raise UsageError(f"init={init!r}: choose one of {', '.join(INITS)}")
    if not np.isfinite(x).all():
        raise UsageError("k-means was given rows that are not finite; leave those out")
    block = min(num_clusters, _MAX_CENTROIDS)
    rows, mean = place(x, np.arange(len(x)), most=max(8, _MAX_SCORES // block), mesh=mesh)
    best = None
    for restart in range(1 if start is not None else num_restarts):
        if start is None:
            draw = {"mean": mean, "k": num_clusters, "seed": (seed, restart), "mesh": mesh}
            first = INITS[init](x, rows, **draw)
        else:
            first = np.asarray(start, np.float32) - mean
        most = replicate(np.int32(num_iterations), mesh)
        found = jax.device_get(_lloyd(rows, replicate(first, mesh), most, mesh=mesh))
        if best is None or found["objective"] < best["objective"]:
            best = found
    return Clusters(
        centroids=best["centroids"] + mean,
        labels=best["labels"].reshape(-1)[: len(x)],
        counts=best["counts"],
        objective=float(best["objective"]),
        iterations=int(best["iterations"]),
        converged=bool(best["changed"] == 0),
    )


def _random(
    x: np.ndarray, rows: Rows, *, mean: np.ndarray, k: int, seed: tuple[int, int], mesh: Mesh
) -> np.ndarray:
    del rows, mesh
    chosen = np.random.default_rng(seed).choice(len(x), k, replace=False)
    return np.asarray(x[chosen], np.float32) - mean


def _plus_plus(
    x: np.ndarray, rows: Rows, *, mean: np.ndarray, k: int, seed: tuple[int, int], mesh: Mesh
) -> np.ndarray:
    rng = np.random.default_rng(seed)
    first = np.asarray(x[rng.integers(len(x))], np.float32) - mean
    number = replicate(rng.integers(2**32, dtype=np.uint32), mesh)
    return np.asarray(_draw_apart(rows, replicate(first, mesh), number, k=k, mesh=mesh))


INITS = {"random": _random, "k-means++": _plus_plus}


@functools.partial(jax.jit, static_argnames=("k", "mesh"))
def _draw_apart(rows: Rows, first: Array, number: Array, *, k: int, mesh: Mesh) -> Array:
    """k rows, each drawn by its squared distance to the nearest that was drawn before it."""
    axes = mesh.axis_names

    @functools.partial(
        jax.shard_map, mesh=mesh, in_specs=(P(axes), P(), P()), out_specs=P(), check_vma=False
    )
    def draw(rows: Rows, first: Array, number: Array) -> Array:
        x, ids = rows.x.reshape(-1, rows.x.shape[-1]), rows.ids.reshape(-1)
        base = jax.random.key(number)

        def add(i: Array, state: tuple[Array, Array]) -> tuple[Array, Array]:
            centroids, distance = state
            distance = jnp.minimum(distance, jnp.sum((x - centroids[i - 1]) ** 2, -1))
            # The largest of log(weight) + Gumbel noise is a draw by weight. The noise of a row
            # depends on its number alone, not on the device that holds it.
            key = jax.random.fold_in(base, i)
            noise = jax.vmap(lambda j: jax.random.gumbel(jax.random.fold_in(key, j)))(ids)
            score = jnp.where(ids >= 0, jnp.log(distance) + noise, -jnp.inf)
            own = jnp.argmax(score)
            scores, candidates = jax.lax.all_gather((score[own], x[own]), axes)
            return centroids.at[i].set(candidates[jnp.argmax(scores)]), distance

        centroids = jnp.zeros((k, x.shape[1])).at[0].set(first)
        return jax.lax.fori_loop(1, k, add, (centroids, jnp.full(len(x), jnp.inf)))[0]

    return draw(rows, first, number)


@functools.partial(jax.jit, static_argnames="mesh")
def _lloyd(rows: Rows, centroids: Array, most: Array, *, mesh: Mesh) -> dict[str, Array]:
    """All iterations from the given centroids; see `Clusters` for what comes back."""
    axes = mesh.axis_names
    out = dict.fromkeys(("centroids", "counts", "objective", "iterations", "changed"), P())

    @functools.partial(
        jax.shard_map,
        mesh=mesh,
        in_specs=(P(axes), P(), P()),
        out_specs=out | {"labels": P(axes)},
        check_vma=False,
    )
    def run(rows: Rows, centroids: Array, most: Array) -> dict[str, Array]:
        def going(state: _State) -> Array:
            return (state.iterations < most) & (state.changed > 0)

        def iterate(state: _State) -> _State:
            labels, distances, moves, counts = _assign(rows, state.centroids)
            moves, counts = jax.lax.psum((moves, counts), axes)
            moved = state.centroids + moves / jnp.maximum(counts, 1)[:, None]
            moved, put = jax.lax.cond(
                (counts == 0).any(),
                lambda: _reseed(rows, distances, moved, counts, axes),
                lambda: (moved, jnp.int32(0)),
            )
            changed = jax.lax.psum(jnp.sum(labels != state.labels), axes)
            return _State(moved, labels, changed + put, state.iterations + 1)

        start = _State(centroids, jnp.full_like(rows.ids, -1), jnp.int32(1), jnp.int32(0))
        state = jax.lax.while_loop(going, iterate, start)
        labels, distances, _, counts = _assign(rows, state.centroids)
        return {
            "centroids": state.centroids,
            "labels": labels,
            "counts": jax.lax.psum(counts, axes),
            "objective": jax.lax.psum(jnp.sum(distances), axes),
            "iterations": state.iterations,
            "changed": state.changed,
        }

    found = run(rows, centroids, most)
    # On every host whole.
    return jax.lax.with_sharding_constraint(found, NamedSharding(mesh, P()))


def _assign(rows: Rows, centroids: Array) -> tuple[Array, Array, Array, Array]:
    """One pass over a device's rows.

    Returns:
        labels [chunks, c] and squared distances [chunks, c], 0 on rows that only fill up; for each
        centroid the sum of its rows' differences from it [k, d], and their number [k].
    """
    k = len(centroids)
    blocks = _in_blocks(centroids)

    def add(totals: tuple[Array, Array], chunk: Rows) -> tuple[tuple, tuple]:
        is_row = chunk.ids >= 0
        labels = jnp.where(is_row, _nearest(chunk.x, *blocks), 0)
        difference = jnp.where(is_row[:, None], chunk.x - centroids[labels], 0.0)
        part = _sum_by_label(difference, is_row, labels, k)
        return jax.tree.map(jnp.add, totals, part), (labels, jnp.sum(difference**2, -1))

    zeros = jnp.zeros_like(centroids), jnp.zeros(k, jnp.int32)
    (moves, counts), (labels, distances) = jax.lax.scan(add, zeros, rows)
    return labels, distances, moves, counts


def _in_blocks(centroids: Array) -> tuple[Array, Array]:
    """Centroids [blocks, b, d] and half their squared norms [blocks, b], infinite on filling."""
    k, d = centroids.shape
    block = min(k, _MAX_CENTROIDS)
    missing = -k % block
    halves = jnp.pad(jnp.sum(centroids**2, -1) / 2, (0, missing), constant_values=jnp.inf)
    padded = jnp.pad(centroids, ((0, missing), (0, 0)))
    return padded.reshape(-1, block, d), halves.reshape(-1, block)


def _nearest(x: Array, blocks: Array, halves: Array) -> Array:
    """The nearest centroid of every row [c], the lower one of two as near."""

    def look(best: tuple[Array, Array], block: tuple[Array, Array, Array]) -> tuple[tuple, None]:
        centroids, half, first = block
        # ||x||^2 / 2 less half of the squared distance.
        score = jnp.matmul(x, centroids.T, precision=_PRECISION) - half
        here = score.max(1)
        # As argmax, which XLA does not vectorise on CPUs.
        ids = first + jnp.arange(score.shape[1], dtype=jnp.int32)
        label = jnp.where(score == here[:, None], ids, _NO_LABEL).min(1)
        is_nearer = here > best[0]
        return (
            jnp.where(is_nearer, here, best[0]),
            jnp.where(is_nearer, label, best[1]),
        ), None

    firsts = jnp.arange(len(blocks), dtype=jnp.int32) * blocks.shape[1]
    start = jnp.full(len(x), -jnp.inf), jnp.zeros(len(x), jnp.int32)
    return jax.lax.scan(look, start, (blocks, halves, firsts))[0][1]


def _sum_by_label(values: Array, is_row: Array, labels: Array, k: int) -> tuple[Array, Array]:
    """Sums of values [k, d] and numbers of rows [k] by label.

    On CPUs by scattered additions, which cost next to nothing there; accelerators add in no fixed
    order where several go to one place, so there by matrix products with one-hot labels.
    """
    sums = jax.lax.platform_dependent(
        values,
        labels,
        cpu=functools.partial(sum_scattered, k=k),
        default=functools.partial(sum_one_hot, k=k),
    )
    # Integers: the same in any order.
    return sums, jnp.zeros(k, jnp.int32).at[labels].add(is_row.astype(jnp.int32))


def sum_scattered(values: Array, labels: Array, *, k: int) -> Array:
    """Sums of values [c, d] by labels [c], `[k, d]`, by scattered additions."""
    return jnp.zeros((k, values.shape[1])).at[labels].add(values)


def sum_one_hot(values: Array, labels: Array, *, k: int) -> Array:
    """The same by matrix products, a block of labels at a time."""
    block = min(k, _MAX_CENTROIDS)

    def of_block(first: Array) -> Array:
        is_own = labels[:, None] == first + jnp.arange(block)
        return jnp.matmul(is_own.T.astype(jnp.float32), values, precision=_PRECISION)

    sums = jax.lax.map(of_block, jnp.arange(0, k, block))
    return sums.reshape(-1, values.shape[1])[:k]


def _reseed(
    rows: Rows, distances: Array, centroids: Array, counts: Array, axes: tuple[str, ...]
) -> tuple[Array, Array]:
    """Centroids without rows put on the rows farthest from their own, and how many were."""
    most = min(_MAX_RESEEDED, len(centroids))
    x, far = rows.x.reshape(-1, rows.x.shape[-1]), distances.reshape(-1)
    short = max(0, most - len(far))
    x, far = jnp.pad(x, ((0, short), (0, 0))), jnp.pad(far, (0, short))
    far, own = jax.lax.top_k(far, most)
    # Devices hold rows in their order, so of rows as far the one with the lower number comes first.
    far, candidates = jax.lax.all_gather((far, x[own]), axes, tiled=True)
    far, chosen = jax.lax.top_k(far, most)
    turn = jnp.cumsum(counts == 0) - 1
    place = jnp.minimum(turn, most - 1)
    is_put = (counts == 0) & (turn < most) & (far[place] > 0)
    return (
        jnp.where(is_put[:, None], candidates[chosen[place]], centroids),
        jnp.sum(is_put, dtype=jnp.int32),
    )
