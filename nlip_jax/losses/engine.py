"""One engine for all contrastive losses: any similarity, normaliser and targets, on any mesh.

Whatever the implementation, it sees the global batch and gives the same statistics of every row
of logits, from which `losses/targets.py` makes losses:

    dense   the whole matrix; XLA splits it over the devices as it likes
    rows    each device its rows of the matrix, against the gathered columns of all
    tiled   the same, but one tile at a time, forward and backward
    ring    tiles, and columns travel from device to device instead of being gathered
"""

import dataclasses
import functools
from collections.abc import Callable

import flax.struct
import jax
import jax.numpy as jnp
from jax import Array
from jax.sharding import Mesh

from nlip_jax.losses.dense import dense_sums, row_sums
from nlip_jax.losses.sides import Affine, Problem, Side, Sums, clean
from nlip_jax.losses.tiled import tiled_sums

# What features are rounded to where they are multiplied; float32 leaves them as they come, and does
# not cut float64 down.
DTYPES = {"float32": None, "bfloat16": "bfloat16"}
DUPLICATES = ("negatives", "ignored", "positives")


@flax.struct.dataclass
class RowStatistics:
    """What a loss needs to know of each row i of logits a_ij, over the columns that count.

    Attributes:
        normaliser: [b] log sum_j exp(a_ij) (softmax) or sum_j log(1 + exp(a_ij)) (sigmoid).
        positive: [b] a_ii; mean over the positives where there are several.
        total: [b] sum_j a_ij.
        columns: [b] number of columns that count.
        positives: [b] number of positives among them: 1, or more where duplicates are positives.
        mass: [b] sum of the targets of a row: 1 (softmax), or the number of positives (sigmoid).
        duplicates: [b] other columns that are the row's own all the same; 0 where nobody looked.
    """

    normaliser: Array
    positive: Array
    total: Array
    columns: Array
    positives: Array
    mass: Array
    duplicates: Array


@dataclasses.dataclass(frozen=True, kw_only=True)
class Engine:
    """How the global matrix of logits is gone through.

    Attributes:
        impl: dense | rows | tiled | ring.
        mesh: its devices share the rows; None: one device.
        tile: most rows and columns of a tile (tiled, ring).
        dtype: of the features that are multiplied; sums are float32 whatever it is.
        duplicates: what rows that share a key are to one another: negatives | ignored | positives.
    """

    impl: str = "dense"
    mesh: Mesh | None = None
    tile: int = 1024
    dtype: str = "float32"
    duplicates: str = "negatives"

    def pairs(
        self,
        problem: Problem,
        images: Side,
        texts: Side,
        affine: Affine,
    ) -> tuple[RowStatistics, RowStatistics]:
        """Statistics of the images over all texts, and of the texts over all images.

        Args:
            problem: similarity and normaliser.
            images: [b]; image i and text i are a pair.
            texts: [b].
            affine: from similarities to logits.
        """
        problem = dataclasses.replace(
            problem,
            ignore_duplicates=self.duplicates == "ignored",
            both_ways=True,
            dtype=DTYPES[self.dtype],
        )
        count = len(images.features)
        valid = valid_pairs(images, texts)
        rows, columns = (self._prepare(side.replace(valid=valid)) for side in (images, texts))
        affine = _like(affine, rows)
        found = IMPLEMENTATIONS[self.impl](self)(problem, rows, columns, affine)
        own = problem.own_logits(rows, columns, affine)
        candidates = count if valid is None else jnp.sum(valid)
        make = functools.partial(self._statistics, problem, candidates=candidates, count=count)
        return make(found[0], own.per_row), make(found[1], own.per_column)

    def queries(
        self,
        problem: Problem,
        queries: Side,
        candidates: Side,
        affine: Affine,
        *,
        own: Array,
    ) -> RowStatistics:
        """Statistics of queries over candidates that do not look back (queues, prototypes).

        Args:
            problem: similarity and normaliser.
            queries: [b].
            candidates: [n].
            affine: from similarities to logits.
            own: [b] int32, the right candidate of each query.
        """
        if queries.keys or candidates.keys:
            raise ValueError("keys are for pairs: a query's place says nothing of its candidate's")
        problem = dataclasses.replace(problem, both_ways=False, dtype=DTYPES[self.dtype])
        count = len(queries.features)
        valid = candidates.valid
        rows, columns = self._prepare(queries), self._prepare(candidates)
        affine = _like(affine, rows)
        found, _ = IMPLEMENTATIONS[self.impl](self)(problem, rows, columns, affine)
        partners = jax.tree.map(lambda a: a[own], columns)
        own_rows = jax.tree.map(lambda a: a[:count], rows)
        positive = problem.own_logits(own_rows, partners, affine).per_row
        num_candidates = len(candidates.features) if valid is None else jnp.sum(valid)
        return self._statistics(
            problem, found, positive, candidates=num_candidates, count=count
        )

    def _prepare(self, side: Side) -> Side:
        """Clean features, the rows filled up to a multiple of the devices."""
        side = clean(side)
        missing = -len(side.features) % (1 if self.mesh is None else self.mesh.size)
        if not missing:
            return side
        if side.valid is None:
            side = side.replace(valid=jnp.ones(len(side.features), bool))
        return jax.tree.map(
            lambda a: jnp.pad(a, [(0, missing)] + [(0, 0)] * (a.ndim - 1)), side
        )

    def _statistics(
        self, problem: Problem, sums: Sums, own: Array, *, candidates: Array | int, count: int
    ) -> RowStatistics:
        sums, own = jax.tree.map(lambda a: a[:count], (sums, own))
        ones = jnp.ones_like(own)
        duplicates = jax.lax.stop_gradient(sums.duplicates)
        ignored = self.duplicates == "ignored"
        positives = ones + duplicates if self.duplicates == "positives" else ones
        positive = own
        if self.duplicates == "positives":
            positive = (own + sums.duplicate_total) / positives
        return RowStatistics(
            normaliser=sums.normaliser,
            positive=positive,
            total=sums.total,
            columns=candidates - duplicates if ignored else candidates * ones,
            positives=positives,
            mass=positives if problem.normaliser.counts_every_positive else ones,
            duplicates=duplicates,
        )


def valid_pairs(images: Side, texts: Side) -> Array | None:
    """Pairs that count, [b] bool: both of their sides do; None where all of them count."""
    known = [side.valid for side in (images, texts) if side.valid is not None]
    return functools.reduce(jnp.logical_and, known) if known else None


def _like(affine: Affine, rows: Side) -> Affine:
    """In the precision of the logits."""
    dtype = jnp.promote_types(rows.features.dtype, jnp.float32)
    return jax.tree.map(lambda value: jnp.asarray(value, dtype), affine)


def _rows(engine: Engine) -> Callable:
    if engine.mesh is None or engine.mesh.size == 1:
        return dense_sums  # the rows of one device are all rows
    return functools.partial(row_sums, mesh=engine.mesh)


def _tiled(engine: Engine, *, travels: bool) -> Callable:
    return functools.partial(tiled_sums, mesh=engine.mesh, tile=engine.tile, travels=travels)


IMPLEMENTATIONS: dict[str, Callable[[Engine], Callable]] = {
    "dense": lambda engine: dense_sums,
    "rows": _rows,
    "tiled": functools.partial(_tiled, travels=False),
    "ring": functools.partial(_tiled, travels=True),
}
