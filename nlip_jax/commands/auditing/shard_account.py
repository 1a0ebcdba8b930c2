"""How noisy each shard of a data set is."""

from dataclasses import dataclass

import numpy as np
import pyarrow as pa

_Z = 1.96  # standard deviations to either side of a 95 % interval


@dataclass(frozen=True, kw_only=True)
class ShardNoise:
    """One shard.

    Attributes:
      shard: its name.
      pairs: that it holds.
      looked_at: of these, pairs whose noise probability is known.
      noisy: of these, pairs whose noise probability is 0.5 or more.
      mean: of their noise probabilities; NaN where none is known.
    """

    shard: str
    pairs: int
    looked_at: int
    noisy: int
    mean: float

    @property
    def share(self) -> float:
        """Of noisy pairs among those looked at; NaN without any."""
        return self.noisy / self.looked_at if self.looked_at else float("nan")

    @property
    def interval(self) -> tuple[float, float]:
        """Of that share: few pairs say little."""
        return wilson(self.noisy, self.looked_at)


class ShardAccount:
    """Counts the pairs of every shard, from tables of `Evidence`."""

    def __init__(self) -> None:
        self._counts: dict[str, np.ndarray] = {}  # pairs, looked at, noisy, sum

    def add(self, table: pa.Table) -> None:
        """Counts the pairs of a table."""
        noise_prob = table["noise_prob"].to_numpy()
        known = np.isfinite(noise_prob)
        columns = np.stack(
            [
                np.ones(len(known)),
                known,
                known & (noise_prob >= 0.5),
                np.where(known, noise_prob, 0).astype(np.float64),
            ]
        )
        shards = table["shard"].combine_chunks()
        names = [*shards.dictionary.to_pylist(), None]
        indices = shards.indices.fill_null(len(names) - 1).to_numpy(zero_copy_only=False)
        sums = np.stack([np.bincount(indices, one, len(names)) for one in columns], axis=1)
        for name, counts in zip(names[:-1], sums, strict=False):
            if counts[0]:
                self._counts[name] = self._counts.get(name, 0) + counts

    def shards(self) -> list[ShardNoise]:
        """All shards, in the order of the examples."""
        return [
            ShardNoise(
                shard=name,
                pairs=int(pairs),
                looked_at=int(looked_at),
                noisy=int(noisy),
                mean=total / looked_at if looked_at else float("nan"),
            )
            for name, (pairs, looked_at, noisy, total) in self._counts.items()
        ]


def worst_first(shards: list[ShardNoise]) -> list[ShardNoise]:
    """Shards by the least share of noisy pairs that they are likely to have, the highest first."""
    known = [shard for shard in shards if shard.looked_at]
    return sorted(known, key=lambda shard: (-shard.interval[0], shard.shard))


def wilson(hits: int, count: int) -> tuple[float, float]:
    """The 95 % interval of a share (Wilson, 1927): from few draws it is wide, but never empty."""
    if not count:
        return 0.0, 1.0
    share, spread = hits / count, _Z**2 / count
    centre = (share + spread / 2) / (1 + spread)
    half = _Z / (1 + spread) * ((share * (1 - share) + spread / 4) / count) ** 0.5
    return max(0.0, centre - half), min(1.0, centre + half)
