"""ROUGE-L: the longest common subsequence, as the COCO protocol combines it over references.

Lin 2004; beta = 1.2, and precision and recall are each the best over the references.
"""

from collections.abc import Sequence

import numpy as np

from nlip_jax.evaluators.captions.scored import Captioned, Scores

_BETA = 1.2


def rouge_l(captioned: Captioned) -> Scores:
    """Returns "rouge_l", the mean over images."""
    pairs = zip(captioned.produced, captioned.references, strict=True)
    per_image = np.array([_of_image(produced, references) for produced, references in pairs])
    return Scores({"rouge_l": float(per_image.mean())}, {"rouge_l": per_image})


def _of_image(produced: str, references: Sequence[str]) -> float:
    # By single spaces, as the protocol has it: an empty caption is one empty token.
    ours, theirs = produced.split(" "), [text.split(" ") for text in references]
    places: dict[str, int] = {}
    for i, token in enumerate(ours):
        places[token] = places.get(token, 0) | 1 << i
    common = [_common(places, len(ours), tokens) for tokens in theirs]
    precision = max(common) / len(ours)
    recall = max(length / len(tokens) for length, tokens in zip(common, theirs, strict=True))
    if not precision or not recall:
        return 0.0
    return (1 + _BETA**2) * precision * recall / (recall + _BETA**2 * precision)


def _common(places: dict[str, int], length: int, tokens: Sequence[str]) -> int:
    """Length of the longest common subsequence, all cells of a row as bits of one number.

    Hyyro 2004, Bit-parallel LCS-length computation revisited.

    Args:
      places: of each token in one text, as bits.
      length: of that text.
      tokens: the other text.
    """
    everywhere = (1 << length) - 1
    row = everywhere
    for token in tokens:
        met = row & places.get(token, 0)
        row = ((row + met) | (row - met)) & everywhere
    return length - row.bit_count()
