"""What a search found, in lines, on a page and as plain values."""

import dataclasses
import functools
from collections.abc import Mapping
from typing import Any

import numpy as np

from nlip_jax.commands.searching.places import Place
from nlip_jax.commands.searching.request import Request
from nlip_jax.data.failures import ReadError
from nlip_jax.data.images.decode import to_pixels
from nlip_jax.outcome import Item, Query
from nlip_jax.report.evaluation_records import SearchReport

_CAPTION = 80  # characters of a caption on the terminal


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Answers:
    """The best images of one query.

    Attributes:
      request: what was asked for.
      place: what was searched.
      ids: `[k]` images, the best first; -1 where there are no more.
      scores: `[k]` of these.
    """

    request: Request
    place: Place
    ids: np.ndarray
    scores: np.ndarray

    @functools.cached_property
    def rows(self) -> list[dict[str, Any]]:
        """Rank from 1, score, image, file and caption of each."""
        ids = self.ids[self.ids >= 0].tolist()
        captions = self.place.captions_of(ids)
        return [
            {
                "rank": rank,
                "score": float(score),
                "image": image_id,
                "file": self.place.file_of(image_id),
                "caption": caption,
            }
            for rank, (image_id, score, caption) in enumerate(
                zip(ids, self.scores, captions, strict=False), start=1
            )
        ]

    @property
    def weights(self) -> dict[str, float]:
        """Of the parts of the query; empty where it has one part."""
        if not self.request.has_both:
            return {}
        return {"image": self.request.image_weight, "text": self.request.text_weight}


def describe(answers: Answers) -> str:
    """What was found, in lines."""
    files = max((len(row["file"]) for row in answers.rows), default=0)
    return "\n".join(
        f"{row['rank']:>3}  {row['score']:7.4f}  {row['file']:{files}}  "
        f"{row['caption'][:_CAPTION]}".rstrip()
        for row in answers.rows
    )


def to_json(answers: Answers) -> dict[str, Any]:
    """What was asked and found, as plain values."""
    request = answers.request
    query = {"text": request.text, "image": request.image, "weights": answers.weights}
    return {"query": query, "over": answers.place.name, "images": answers.rows}


def to_report(
    answers: Answers, *, picture: np.ndarray | None, provenance: Mapping[str, str]
) -> SearchReport:
    """What the page shows.

    Args:
      answers: with images that are read again here.
      picture: of the query, `[h, w, 3]` uint8; None without.
      provenance: what made the numbers.
    """
    items = [
        Item(text=row["caption"], image=_picture(answers, row["image"]), score=row["score"])
        for row in answers.rows
    ]
    note = " + ".join(f"{weight:g} x {name}" for name, weight in answers.weights.items())
    return SearchReport(
        title=f"Search in {answers.place.name}",
        description=f"the {len(items):,} most similar of {answers.place.source.num_images:,} "
        "images",
        query=Query(
            query=Item(text=answers.request.text, image=picture),
            answers=tuple(items),
            note=f"query = {note}, both of length 1" if note else "",
        ),
        weights=answers.weights,
        names=[row["file"] for row in answers.rows],
        provenance=provenance,
    )


def _picture(answers: Answers, image_id: int) -> np.ndarray | None:
    """An image that was read before; None if its storage is moody."""
    try:
        picture = answers.place.source.picture(image_id)
        return to_pixels(picture, max_pixels=answers.request.config.data.max_pixels)
    except ReadError:
        return None
