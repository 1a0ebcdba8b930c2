"""Masked language modelling: which tokens a model has to guess, and what it sees in their place.

Devlin et al. 2019, BERT: pre-training of deep bidirectional transformers, section 3.1; whole words
as in the note of May 2019 in BERT's repository.
"""

from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from nlip_jax.data.text.tokenizer import PAD, Tokenizer
from nlip_jax.errors import UsageError

_STREAM = 0x4D4C4D  # keeps the masks apart from the other random numbers of an example

_SEEN_AS_MASK, _SEEN_AS_OTHER = 0.8, 0.1  # the rest is seen as it is


class Masked(NamedTuple):
    """A row to complete.

    Attributes:
      inputs: `[l]` int32, what the model sees.
      labels: `[l]` int32, the true id of every token that was picked, and 0 elsewhere: 0 is padding
        and never a target, so a loss takes `labels != 0` as a row takes `tokens != 0`.
    """

    inputs: np.ndarray
    labels: np.ndarray


def mask_tokens(
    tokens: np.ndarray,
    units: np.ndarray,
    rng: np.random.Generator,
    *,
    rate: float,
    mask_id: int,
    other_ids: np.ndarray,
) -> Masked:
    """Picks a share of a row's units; every token of a picked one is to be guessed.

    Of n units, rate * n are picked, rounded up or down at random such that this holds on average;
    at least one if there is any. Of the picked tokens 80 % are seen as [MASK], 10 % as a random
    one, and 10 % as they are, each drawn for itself.

    Args:
      tokens: `[l]` int32.
      units: `[l]` int32, the unit of each token, from 1 without gaps; 0: never picked. Words, as of
        `Tokenizer.words`, or single tokens.
      rng: draws.
      rate: share of the units, in (0, 1].
      mask_id: of [MASK].
      other_ids: `[k]` int32, what random ones are drawn from.
    """
    count = int(units.max(initial=0))
    picked = np.zeros(count + 1, bool)
    if count:
        size = max(1, int(count * rate + rng.random()))
        picked[1 + rng.choice(count, size=size, replace=False)] = True
    picked = picked[units]
    seen_as = rng.random(len(tokens))
    others = other_ids[rng.integers(len(other_ids), size=len(tokens))]
    changed = np.where(seen_as < _SEEN_AS_MASK + _SEEN_AS_OTHER, others, tokens)
    changed = np.where(seen_as < _SEEN_AS_MASK, mask_id, changed)
    inputs = np.where(picked, changed, tokens).astype(np.int32)
    return Masked(inputs=inputs, labels=np.where(picked, tokens, PAD).astype(np.int32))


@dataclass(frozen=True, kw_only=True)
class MaskText:
    """Masks rows of a tokenizer; the same example gets the same mask in the same epoch, anywhere.

    Attributes:
      tokenizer: of the rows; special ids, unknown ones among them, are never picked.
      rate: share of tokens or words to guess.
      whole_words: pick words, all tokens of one or none, rather than tokens.
      seed: of the draws.

    Raises:
      UsageError: the tokenizer has no [MASK], or the rate is no share.
    """

    tokenizer: Tokenizer
    rate: float = 0.15
    whole_words: bool = False
    seed: int = 0
    _other_ids: np.ndarray = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if "mask" not in self.tokenizer.special_ids:
            raise UsageError(
                "this vocabulary has no [MASK] to train masked language modelling with: take "
                "config.tokenizer.name=bert, or sentencepiece with a vocabulary trained here"
            )
        if not 0 < self.rate <= 1:
            raise UsageError(f"a mask rate of {self.rate} is not in (0, 1]")
        ids = np.arange(self.tokenizer.vocab_size, dtype=np.int32)
        special = np.isin(ids, list(self.tokenizer.special_ids.values()))
        object.__setattr__(self, "_other_ids", ids[~special])

    def __call__(self, tokens: np.ndarray, *, example_id: int, epoch: int) -> Masked:
        """A row `[l]` int32, as of `Tokenizer.encode`, to one to complete."""
        words = self.tokenizer.words(tokens)
        units = words if self.whole_words else np.where(words, np.cumsum(words > 0), 0)
        return mask_tokens(
            tokens,
            units,
            np.random.default_rng((self.seed, epoch, example_id, _STREAM)),
            rate=self.rate,
            mask_id=self.tokenizer.special_ids["mask"],
            other_ids=self._other_ids,
        )
