"""Which concepts of the captions make the vocabulary: the frequent ones."""

import heapq
import logging
import math
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from nlip_jax.data.concepts.counting import Counted, TextCounts
from nlip_jax.data.concepts.tagger import Tagger
from nlip_jax.errors import UsageError

_LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class Mined:
    """What was found in the captions.

    Attributes:
      concepts: with the number of captions that name each; the most frequent first, equals by text.
      num_captions: that were looked through.
    """

    concepts: tuple[Counted, ...]
    num_captions: int


def mine(
    captions: Iterable[str],
    *,
    tagger: Tagger,
    min_count: int,
    min_share: float,
    max_size: int,
    folder: Path,
) -> Mined:
    """Counts the concepts of captions and keeps the frequent ones.

    The same captions give the same concepts, in any order; memory does not grow with their number.

    Args:
      captions: passed over once; each counts a concept once.
      tagger: finds the concepts of each.
      min_count: captions that name a concept, at least.
      min_share: the same as a share of all captions.
      max_size: concepts kept, the most frequent ones.
      folder: for files while it works; it must be nobody else's.

    Raises:
      UsageError: no concept is frequent enough.
    """
    counts, num_captions = TextCounts(folder), 0
    try:
        for found in tagger(captions):
            counts.add(found)
            num_captions += 1
        least = max(min_count, math.ceil(min_share * num_captions))
        frequent = (item for item in counts.sums() if item.count >= least)
        kept = heapq.nsmallest(max_size, frequent, key=lambda item: (-item.count, item.text))
    finally:
        counts.close()
    if not kept:
        raise UsageError(
            f"no concept is named by {least} of the {num_captions} captions: lower "
            "config.concepts.min_count or min_share, set config.concepts.vocabulary to a file with "
            "one a line, or go without (config.concepts.top_k=0)"
        )
    _LOG.info("%d concepts are named by %d or more of %d captions", len(kept), least, num_captions)
    return Mined(tuple(kept), num_captions)
