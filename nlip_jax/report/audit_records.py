"""What the page of an audit shows, as plain numbers."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from nlip_jax.report.records import NoiseEstimate


@dataclass(frozen=True, kw_only=True)
class Stage:
    """A part of the work.

    Attributes:
        name: what was done.
        done: how far, in words.
        finished: whether nothing of it is left.
        seconds: that it took this time.
    """

    name: str
    done: str
    finished: bool
    seconds: float


@dataclass(frozen=True, kw_only=True, eq=False)
class AuditedPair:
    """A pair and what the audit thinks of it.

    Attributes:
        example_id: its number.
        image: `[h, w, 3]` uint8 RGB; None if it cannot be read.
        caption: its text.
        noise_prob: of it.
        pair_loss: nats.
        missing: concepts that the text lacks.
        proposed: another caption; empty for none.
        truth: what was planted in it; None where nobody knows.
    """

    example_id: int
    image: np.ndarray | None
    caption: str
    noise_prob: float
    pair_loss: float
    missing: Sequence[str] = ()
    proposed: str = ""
    truth: str | None = None


@dataclass(frozen=True, kw_only=True)
class Decile:
    """Pairs out of a tenth of all, by their loss.

    Attributes:
        low: lowest noise probability in it.
        high: highest.
        pairs: some of it.
    """

    low: float
    high: float
    pairs: Sequence[AuditedPair]


@dataclass(frozen=True, kw_only=True)
class WorstShard:
    """A shard with many noisy pairs; `low` and `high` are the ends of the share's interval."""

    name: str
    pairs: int
    looked_at: int
    share: float
    low: float
    high: float
    mean: float
    kept: bool


@dataclass(frozen=True, kw_only=True)
class CaptionGroup:
    """Captions that are nearly the same.

    Attributes:
        count: how many.
        captions: some of them that differ, the first example's first.
        noise_prob: their mean; NaN where none is known.
    """

    count: int
    captions: Sequence[str]
    noise_prob: float


@dataclass(frozen=True, kw_only=True)
class Artefact:
    """A file that the audit wrote, what it is for, and how it is used."""

    name: str
    purpose: str
    usage: str = ""


@dataclass(frozen=True, kw_only=True, eq=False)
class AuditReport:
    """Everything on the page of an audit.

    Attributes:
        title: of the page.
        description: one line.
        notes: what a reader has to know before anything else, such as what was not finished.
        results: metric by path.
        stages: in the order of the work.
        noise: the distribution and the mixture.
        deciles: the least noisy first.
        shards: the worst first; empty where there is one shard only.
        num_shards: all of them.
        groups: the largest first.
        num_groups: all of them.
        missing: concepts that texts lack most often, with how often.
        artefacts: files.
        provenance: what made the numbers.
    """

    title: str
    description: str
    notes: Sequence[str] = ()
    results: Mapping[str, float] = field(default_factory=dict)
    stages: Sequence[Stage] = ()
    noise: NoiseEstimate
    deciles: Sequence[Decile] = ()
    shards: Sequence[WorstShard] = ()
    num_shards: int = 0
    groups: Sequence[CaptionGroup] = ()
    num_groups: int = 0
    missing: Sequence[tuple[str, int]] = ()
    artefacts: Sequence[Artefact] = ()
    provenance: Mapping[str, str] = field(default_factory=dict)
