"""What captions are measured against, and what a metric says of them."""

import dataclasses
import functools
from collections.abc import Mapping, Sequence

import numpy as np

from nlip_jax.evaluators.captions.ngrams import NGrams, count_ngrams

LONGEST = 4  # n-grams that BLEU and CIDEr look at


@dataclasses.dataclass(frozen=True)
class Captioned:
    """Tokenised captions of images; one produced, and at least one by people, for each image.

    Attributes:
      produced: `[n]` texts, tokens with a space between.
      references: `[n]` lists of such texts.
    """

    produced: Sequence[str]
    references: Sequence[Sequence[str]]

    @functools.cached_property
    def owners(self) -> np.ndarray:
        """`[captions]` image of every caption: first the produced ones, then all references."""
        counts = [len(texts) for texts in self.references]
        images = np.arange(len(self.produced))
        return np.concatenate([images, np.repeat(images, counts)])

    @functools.cached_property
    def ngrams(self) -> tuple[NGrams, ...]:
        """Counts of the n-grams of every caption in that order, for n = 1 to 4."""
        texts = [*self.produced, *(text for texts in self.references for text in texts)]
        return count_ngrams([text.split() for text in texts], longest=LONGEST)


@dataclasses.dataclass(frozen=True)
class Scores:
    """What a metric says.

    Attributes:
      values: by name.
      per_image: `[n]` by name, for those values that are the means of them.
    """

    values: Mapping[str, float]
    per_image: Mapping[str, np.ndarray] = dataclasses.field(default_factory=dict)
