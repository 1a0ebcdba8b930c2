"""Queries of a retrieval and their best answers, for people to look at."""

from collections.abc import Callable

import numpy as np

from nlip_jax.data.failures import ReadError
from nlip_jax.data.images.decode import to_pixels
from nlip_jax.data.source import Source
from nlip_jax.evaluators.search import Found
from nlip_jax.methods.base import Features
from nlip_jax.outcome import Item, Queries, Query

TOP = 5  # answers that are shown

Look = Callable[[int], Item]  # number of an image or a text -> what people see of it


def pictures_of(source: Source, *, max_pixels: int) -> Look:
    """Shows images of a source; one that cannot be read by what is wrong with it."""

    def look(image_id: int) -> Item:
        try:
            return Item(image=to_pixels(source.picture(image_id), max_pixels=max_pixels))
        except ReadError as error:
            return Item(text=f"[{error}]")

    return look


def captions_of(source: Source) -> Look:
    """Shows captions of a source; one that cannot be read by what is wrong with it."""

    def look(example_id: int) -> Item:
        try:
            return Item(text=source.caption(example_id))
        except ReadError as error:
            return Item(text=f"[{error}]")

    return look


def show_queries(
    title: str,
    *,
    rank: np.ndarray,
    right: np.ndarray,
    features: Features,
    search: Callable[[Features], Found],
    query: Look,
    answer: Look,
    count: int,
) -> Queries:
    """Searches for some queries again, and shows what was found.

    Args:
      title: of what is shown.
      rank: `[q]` wrong candidates before the best right one, for all queries.
      right: `[q, r]` right candidates, filled up with -1.
      features: of all queries.
      search: features of some queries -> their best candidates.
      query: shows a query.
      answer: shows a candidate.
      count: queries that are shown.
    """
    rows = choose(rank, count=count)
    found = search({name: values[rows] for name, values in features.items()})
    shown = []
    for place, row in enumerate(rows.tolist()):
        best = zip(found.best[place].tolist(), found.scores[place].tolist(), strict=True)
        shown.append(
            Query(
                query=query(row),
                answers=tuple(_scored(answer(i), s, i in right[row]) for i, s in best if i >= 0),
                note=f"rank {rank[row] + 1}",
            )
        )
    return Queries(title=title, queries=tuple(shown))


def choose(rank: np.ndarray, *, count: int) -> np.ndarray:
    """Queries to show: as many that went well as that went wrong, spread over the set.

    Args:
      rank: `[q]`, 0 where the best answer is right.
      count: how many; all where there are no more.

    Returns:
      `[min(count, q)]` sorted places.
    """
    good, bad = np.flatnonzero(rank == 0), np.flatnonzero(rank > 0)
    count = min(count, len(rank))
    of_bad = min(len(bad), max(count // 2, count - len(good)))
    return np.sort(np.concatenate([_spread(good, count - of_bad), _spread(bad, of_bad)]))


def _spread(places: np.ndarray, count: int) -> np.ndarray:
    return places[np.arange(count) * len(places) // max(count, 1)]


def _scored(item: Item, score: float, is_right: bool) -> Item:
    return Item(text=item.text, image=item.image, score=score, is_right=bool(is_right))
