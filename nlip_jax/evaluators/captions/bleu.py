"""BLEU of a corpus, by the rules of the COCO protocol.

Papineni et al. 2002; the reference length of an image is that of the reference whose length is
closest to the produced caption's, the shorter of two.
"""

import math

import numpy as np

from nlip_jax.evaluators.captions.ngrams import look_up
from nlip_jax.evaluators.captions.scored import Captioned, Scores

# The protocol's guards against division by zero.
_SMALL, _TINY = 1e-9, 1e-15


def bleu(captioned: Captioned) -> Scores:
    """Returns "bleu1" to "bleu4"; they are no means over images."""
    num_images, owners = len(captioned.produced), captioned.owners
    words = captioned.ngrams[0].lengths
    produced = words[:num_images]
    product, values = 1.0, {}
    brevity = _brevity(produced, words[num_images:], owners[num_images:])
    for n, ngrams in enumerate(captioned.ngrams, start=1):
        keys, is_produced = ngrams.keys(owners), ngrams.text < num_images
        # An n-gram counts as often as it stands in that reference that has it most often.
        order = np.lexsort((-ngrams.count, keys, is_produced))
        order = order[: np.count_nonzero(~is_produced)]
        allowed, first = np.unique(keys[order], return_index=True)
        most = look_up(keys[is_produced], allowed, ngrams.count[order][first])
        right = int(np.minimum(ngrams.count[is_produced], most).sum())
        guessed = int(ngrams.lengths[:num_images].sum())
        product *= (right + _TINY) / (guessed + _SMALL)
        values[f"bleu{n}"] = product ** (1 / n) * brevity
    return Scores(values)


def _brevity(produced: np.ndarray, references: np.ndarray, owners: np.ndarray) -> float:
    """The penalty for captions that are shorter than their references.

    Args:
      produced: `[n]` words of each produced caption.
      references: `[r]` words of each reference.
      owners: `[r]` image of each reference, rising.
    """
    away = np.abs(references - produced[owners])
    order = np.lexsort((references, away, owners))
    _, first = np.unique(owners[order], return_index=True)
    closest = int(references[order][first].sum())
    ratio = (int(produced.sum()) + _TINY) / (closest + _SMALL)
    return math.exp(1 - 1 / ratio) if ratio < 1 else 1.0
