"""What a report shows of completed texts, as plain numbers: filled by the trainer."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, kw_only=True)
class Work:
    """What was done between two episodes.

    Attributes:
        step: of the run.
        works: what it was, in the order of doing.
        columns: versions of the columns that it left, by name.
    """

    step: int
    works: Sequence[str]
    columns: Mapping[str, int]


@dataclass(frozen=True, kw_only=True, eq=False)
class CompletedText:
    """A pair with its own and its synthetic text.

    Attributes:
        example_id: its number.
        image: `[h, w, 3]` uint8 RGB.
        own: its own text.
        synthetic: the model's; empty where there is none.
        noise_prob: of the pair; NaN where unknown.
        chance: of the synthetic text to be shown instead of the own.
        concepts: that the captioner was given.
        truth: what was planted in it; None where nobody knows.
    """

    example_id: int
    image: np.ndarray
    own: str
    synthetic: str
    noise_prob: float
    chance: float
    concepts: Sequence[str] = ()
    truth: str | None = None


@dataclass(frozen=True, kw_only=True)
class NoiseDecile:
    """Pairs of similar noise probability.

    Attributes:
        low: lowest noise probability that counts here.
        high: highest.
        pairs: how many there are.
        captioned: how many of them have a synthetic text.
        replaced: how many texts of them an epoch replaces, in the mean.
    """

    low: float
    high: float
    pairs: int
    captioned: int
    replaced: float


@dataclass(frozen=True, kw_only=True, eq=False)
class CaptionVersion:
    """One version of the synthetic texts.

    Attributes:
        name: of the version.
        step: from which on they were trained on.
        deciles: of noise, of those that have pairs.
        groups: examples by what they are.
    """

    name: str
    step: int
    deciles: Sequence[NoiseDecile]
    groups: Mapping[str, Sequence[CompletedText]]


@dataclass(frozen=True, kw_only=True, eq=False)
class SampleOverTime:
    """One example and what was made of its text, version by version.

    Attributes:
        pair: the example as of the latest version.
        captions: (name of the version, text), the oldest first.
    """

    pair: CompletedText
    captions: Sequence[tuple[str, str]]


@dataclass(frozen=True, kw_only=True, eq=False)
class TextsReport:
    """The texts of a run that completes some.

    Attributes:
        rule: which texts are shown, in words.
        works: what was done between the episodes, the first first.
        versions: of the captions, the oldest first; of many, some.
        num_versions: how many there are.
        samples: the same examples over all these versions.
    """

    rule: str
    works: Sequence[Work]
    versions: Sequence[CaptionVersion]
    num_versions: int
    samples: Sequence[SampleOverTime]
