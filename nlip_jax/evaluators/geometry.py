"""The geometry of the embedding space: modality gap, alignment, uniformity, effective rank.

Gap, spread and the mean cosine of positive pairs are what ProtoCLIP reports (Chen et al., arXiv
2206.10996), alignment and uniformity those of Wang and Isola (ICML 2020, arXiv 2005.10242).
"""

import dataclasses
import functools
import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from nlip_jax.data.source import Source
from nlip_jax.data.sources.first_captions import FirstCaptions
from nlip_jax.errors import RunError
from nlip_jax.evaluators.base import Towers
from nlip_jax.outcome import Outcome, Samples
from nlip_jax.sharding import from_all_hosts
from nlip_jax.types import Array

_ROWS, _COLUMNS = 256, 4096  # of a block of distances on one device
_TEMPERATURE = 2.0  # of uniformity


@dataclasses.dataclass(frozen=True, kw_only=True)
class Geometry:
    """One captioned set; of several captions of an image the first one counts.

    Attributes:
      source: its images and captions.
    """

    source: Source

    def run(self, towers: Towers) -> Outcome:
        """All of them, over the pairs of which both sides could be read.

        Returns:
          modality_gap (length of the difference of the mean embeddings), cosine_of_means,
          positive_cosine (its mean over pairs, which ProtoCLIP calls self-similarity), alignment
          (mean squared distance of pairs), and of each modality: uniformity (log of the mean of
          exp(-2 |x - y|^2) over all pairs of distinct embeddings), std (of each dimension, in the
          mean) and effective_rank.

        Raises:
          RunError: fewer than two pairs could be read.
        """
        firsts = FirstCaptions(self.source)
        images = towers.embed_images(self.source)["image_embed"][firsts.images]
        texts = towers.embed_captions(firsts)["text_embed"]
        there = np.isfinite(images).all(1) & np.isfinite(texts).all(1)
        if there.sum() < 2:
            raise RunError(
                f"{there.sum()} of {len(there)} pairs could be read, and geometry needs two: look "
                "at the images with `python -m nlip_jax doctor`"
            )
        x, y = (_unit(one[there].astype(np.float64)) for one in (images, texts))
        means = x.mean(0), y.mean(0)
        lengths = np.linalg.norm(means, axis=1)
        cosines = np.einsum("nd,nd->n", x, y)
        distances = ((x - y) ** 2).sum(1)
        metrics = {
            "modality_gap": float(np.linalg.norm(means[0] - means[1])),
            "cosine_of_means": float(means[0] @ means[1] / max(lengths.prod(), 1e-30)),
            "positive_cosine": float(cosines.mean()),
            "alignment": float(distances.mean()),
        }
        for name, side in (("image", x), ("text", y)):
            metrics |= {
                f"{name}/uniformity": uniformity(side, mesh=towers.mesh),
                f"{name}/std": float(side.std(0, ddof=1).mean()),
                f"{name}/effective_rank": effective_rank(side),
            }
        samples = {
            "positive_cosine": Samples(values=cosines),
            "alignment": Samples(values=distances),
        }
        return Outcome(metrics=metrics, samples=samples)


def effective_rank(x: np.ndarray) -> float:
    """exp of the entropy of the singular values, as shares, of the centred embeddings.

    From 1 where all lie on a line to d where they spread alike in all dimensions (Roy and
    Vetterli, EUSIPCO 2007); 0 where all are one point.

    Args:
      x: `[n, d]` float64, of length 1 or so.
    """
    centred = x - x.mean(0)
    # Of the small matrix [d, d]; in float64, because roots of small eigenvalues enter. What lies
    # below is rounding, of the product and of the mean.
    values = np.sqrt(np.maximum(np.linalg.eigvalsh(centred.T @ centred), 0.0))
    values = values[values > max(1e-7 * np.sqrt(len(x)), 1e-6 * values.max())]
    if not len(values):
        return 0.0
    shares = values / values.sum()
    return float(np.exp(-(shares * np.log(shares)).sum()))


def uniformity(x: np.ndarray, *, mesh: Mesh) -> float:
    """log mean exp(-2 |x_i - x_j|^2) over all i != j; 0 where all are one point, lower is wider.

    The distances are computed in blocks of one shape on any mesh, so the value is the same bits.

    Args:
      x: `[n, d]` of length 1.
      mesh: whose devices share the rows.
    """
    count = len(x)
    columns = min(_COLUMNS, 1 << (count - 1).bit_length())
    rows = min(_ROWS, columns)
    everywhere = NamedSharding(mesh, PartitionSpec())
    by_device = NamedSharding(mesh, PartitionSpec(mesh.axis_names))
    whole = _padded(x.astype(np.float32), columns).reshape(-1, columns, x.shape[1])
    candidates, run = from_all_hosts(whole, everywhere), _compile(mesh, count)
    step, sums = rows * mesh.size, []
    for start in range(0, count, step):
        ids = np.arange(start, start + step, dtype=np.int32)
        queries = x[np.minimum(ids, count - 1)].astype(np.float32)
        block = from_all_hosts(queries, by_device), from_all_hosts(ids, by_device)
        sums.append(np.asarray(run(*block, candidates)))
    # In whatever order: this sum is exact.
    total = math.fsum(np.concatenate(sums)[:count].tolist())
    return math.log(total / (count * (count - 1)))


@functools.lru_cache(maxsize=16)
def _compile(mesh: Mesh, count: int) -> Callable[[Array, Array, Array], Array]:
    def sum_rows(queries: Array, ids: Array, tiles: Array) -> Array:
        """For every query the sum over all others, `[rows]`."""

        def add(total: Array, tile: tuple[Array, Array]) -> tuple[Array, None]:
            candidates, others = tile
            cosine = jnp.matmul(queries, candidates.T, precision=jax.lax.Precision.HIGHEST)
            near = jnp.exp(-2 * _TEMPERATURE * (1 - cosine))
            counts = (others != ids[:, None]) & (others < count)
            return total + jnp.where(counts, near, 0.0).sum(1), None

        numbers = jnp.arange(tiles.shape[0] * tiles.shape[1]).reshape(tiles.shape[:2])
        return jax.lax.scan(add, jnp.zeros(len(queries)), (tiles, numbers))[0]

    split, whole = PartitionSpec(mesh.axis_names), PartitionSpec()
    spread = jax.shard_map(
        sum_rows, mesh=mesh, in_specs=(split, split, whole), out_specs=split, check_vma=False
    )
    return jax.jit(spread, out_shardings=NamedSharding(mesh, whole))


def _unit(x: np.ndarray) -> np.ndarray:
    return x / np.maximum(np.linalg.norm(x, axis=1, keepdims=True), 1e-30)


def _padded(x: np.ndarray, multiple: int) -> np.ndarray:
    return np.concatenate([x, np.zeros((-len(x) % multiple, x.shape[1]), x.dtype)])
