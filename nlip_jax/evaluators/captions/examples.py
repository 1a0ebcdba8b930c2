"""Images with the captions that were produced and those that people wrote, to look at."""

from collections.abc import Sequence

import numpy as np

from nlip_jax.data.source import Source
from nlip_jax.evaluators.retrieval_examples import pictures_of
from nlip_jax.outcome import Item, Queries, Query


def show_captions(
    source: Source,
    *,
    images: np.ndarray,
    produced: Sequence[str],
    references: Sequence[Sequence[str]],
    scores: np.ndarray,
    name: str,
    count: int,
    max_pixels: int,
) -> Queries:
    """The worst, the middle and the best captions.

    Args:
      source: of the images.
      images: `[n]` their numbers.
      produced: `[n]` captions.
      references: `[n]` lists of captions by people.
      scores: `[n]` of the produced captions.
      name: of these scores.
      count: of images to show.
      max_pixels: of an image that is decoded.
    """
    look, shown = pictures_of(source, max_pixels=max_pixels), []
    for row in choose(scores, count=count).tolist():
        mine = Item(text=produced[row], score=float(scores[row]))
        theirs = (Item(text=text, is_right=True) for text in references[row])
        note = f"{name} {100 * scores[row]:.1f}"
        shown.append(Query(query=look(int(images[row])), answers=(mine, *theirs), note=note))
    title = f"Captions: the worst, the middle and the best by {name}, above those that people wrote"
    return Queries(title=title, queries=tuple(shown))


def choose(scores: np.ndarray, *, count: int) -> np.ndarray:
    """Rows to show, the worst first; equal scores in the order of rows.

    Args:
      scores: `[n]`.
      count: of rows; all where there are no more.

    Returns:
      `[min(count, n)]` rows: a third from each end, and the others around the median.
    """
    order, count = np.argsort(scores, kind="stable"), min(count, len(scores))
    ends = count // 3
    start = (len(order) - (count - 2 * ends)) // 2
    middle = order[start : start + count - 2 * ends]
    return np.concatenate([order[:ends], middle, order[len(order) - ends :]])
