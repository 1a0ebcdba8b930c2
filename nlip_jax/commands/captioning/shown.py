"""What the page of `caption` shows: pictures that are read again here."""

from collections.abc import Mapping

import numpy as np

from nlip_jax.commands.captioning.data_set import Data
from nlip_jax.commands.captioning.model import CaptionModel
from nlip_jax.commands.captioning.pictures import Picture
from nlip_jax.commands.captioning.request import Request
from nlip_jax.commands.captioning.table import read_caption
from nlip_jax.commands.searching.places import Place
from nlip_jax.data.failures import ReadError
from nlip_jax.data.images.decode import to_pixels
from nlip_jax.data.source import Source
from nlip_jax.report.caption_records import Captioned, CaptionReport

_PICTURES = 200  # of a folder
_EXAMPLES = 48  # of a data set


def of_folder(
    request: Request, place: Place, pictures: list[Picture], *, provenance: Mapping[str, str]
) -> CaptionReport:
    """The first pictures of a folder."""
    shown = [
        Captioned(
            image=_pixels(place.source, one.image_id, request),
            caption=one.caption or "",
            concepts=one.concepts,
            name=one.file,
        )
        for one in pictures[:_PICTURES]
    ]
    return CaptionReport(
        title=f"Captions of {place.name}",
        description=_how_many(len(shown), len(pictures), "pictures"),
        items=shown,
        provenance=provenance,
    )


def of_data(
    request: Request,
    model: CaptionModel,
    data: Data,
    columns: Mapping[str, np.ndarray],
    *,
    provenance: Mapping[str, str],
) -> CaptionReport:
    """Examples from all over a data set."""
    places = np.linspace(0, len(data.members) - 1, min(_EXAMPLES, len(data.members)))
    shown = []
    for example_id in data.members.take(places.astype(np.int64)).tolist():
        concepts = columns.get("concepts")
        image_id = data.source.image_id(example_id)
        shown.append(
            Captioned(
                image=_pixels(data.source, image_id, request),
                caption=model.text_of(columns["synthetic_caption"][example_id]),
                concepts=() if concepts is None else tuple(model.concepts_of(concepts[example_id])),
                own=read_caption(data, example_id) or "",
                name=f"#{example_id}",
            )
        )
    return CaptionReport(
        title=f"Captions of {data.name}",
        description=_how_many(len(shown), len(data.members), "examples"),
        items=shown,
        provenance=provenance,
    )


def _how_many(shown: int, total: int, what: str) -> str:
    return f"{total:,} {what}" if shown == total else f"{shown:,} of {total:,} {what}"


def _pixels(source: Source, image_id: int, request: Request) -> np.ndarray | None:
    """An image; None if it cannot be read."""
    try:
        return to_pixels(source.picture(image_id), max_pixels=request.config.data.max_pixels)
    except ReadError:
        return None
