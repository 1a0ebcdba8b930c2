"""What a report shows, as plain numbers: filled by the trainer, drawn by `page`."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from nlip_jax.report.text_records import TextsReport


@dataclass(frozen=True, kw_only=True, eq=False)
class Pair:
    """One example beside what the estimate thinks of it."""

    example_id: int
    image: np.ndarray  # [h, w, 3] uint8 RGB
    caption: str
    noise_prob: float
    pair_loss: float  # nats
    truth: str | None = None  # what was planted in it, "clean" for nothing; None where unknown

    @property
    def wrong(self) -> bool:
        """Whether the truth is known and lies on the other side of a noise probability of 0.5."""
        return self.truth is not None and (self.noise_prob >= 0.5) != (self.truth != "clean")


class Component(NamedTuple):
    """One Gaussian of the mixture, in nats."""

    name: str
    mean: float
    deviation: float
    weight: float

    def density(self, x: np.ndarray) -> np.ndarray:
        """Its part of the mixture's density at losses `x` in nats; NaN without a deviation."""
        with np.errstate(divide="ignore", invalid="ignore"):
            normal = np.exp(-0.5 * ((x - self.mean) / self.deviation) ** 2)
            return self.weight * normal / (self.deviation * np.sqrt(2 * np.pi))


class CalibrationBin(NamedTuple):
    """Pairs of similar noise probability: do as many of them turn out to be noisy?"""

    noise_prob: float  # mean over the bin
    observed: float  # share of truly noisy pairs in the bin
    count: int


@dataclass(frozen=True, kw_only=True, eq=False)
class NoiseEstimate:
    """One round of noise estimation: histograms, the fitted mixture and telling examples.

    The mixture is given in units of the normalised loss u, where nats = low + u * (high - low).
    """

    step: int
    losses_counts: np.ndarray  # [bins]
    loss_edges: np.ndarray  # [bins + 1] in nats
    mean: np.ndarray  # [2], clean then noisy
    variance: np.ndarray  # [2]
    weight: np.ndarray  # [2]
    low: float
    high: float
    noise_prob_counts: np.ndarray  # [m]
    noise_prob_edges: np.ndarray  # [m + 1] in [0, 1]
    counts_by_truth: Mapping[str, np.ndarray] | None = None  # planted kind -> [bins]
    calibration: Sequence[CalibrationBin] | None = None
    most_noisy: Sequence[Pair] = ()
    least_noisy: Sequence[Pair] = ()

    @property
    def components(self) -> tuple[Component, Component]:
        """The clean and the noisy component, in nats."""
        scale = self.high - self.low
        means = self.low + scale * np.asarray(self.mean)
        deviations = scale * np.sqrt(self.variance)
        clean, noisy = map(
            Component, ("clean", "noisy"), means, deviations, np.asarray(self.weight)
        )
        return clean, noisy


@dataclass(frozen=True, kw_only=True, eq=False)
class RunReport:
    """Everything on the page of one run."""

    title: str
    description: str = ""
    results: Mapping[str, float] = field(default_factory=dict)
    config: Mapping[str, Any] = field(default_factory=dict)  # nested, JSON-like
    metrics: Sequence[Mapping[str, float]] = ()  # lines of metrics.jsonl, each with its "step"
    noise: Sequence[NoiseEstimate] = ()  # one per round, the latest last
    texts: TextsReport | None = None  # of a run that completes some
    provenance: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True, eq=False)
class ReplayedPair:
    """A pair of a repeated step."""

    example_id: int
    image: np.ndarray  # [h, w, 3] uint8 RGB
    caption: str
    pair_loss: float  # nats
    shard: str  # where it lies
    key: str  # of its sample there


@dataclass(frozen=True, kw_only=True, eq=False)
class ReplayReport:
    """Everything on the page of one repeated step."""

    title: str
    description: str
    results: Mapping[str, float]
    pairs: Sequence[ReplayedPair]  # the worst first
    provenance: Mapping[str, str] = field(default_factory=dict)
