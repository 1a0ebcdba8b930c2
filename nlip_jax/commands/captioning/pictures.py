"""Captions of the pictures of a folder."""

import dataclasses
from typing import Any

import jax.numpy as jnp
import numpy as np

from nlip_jax import build
from nlip_jax.build.sources import make_storage
from nlip_jax.commands.captioning.model import CaptionModel
from nlip_jax.commands.captioning.request import Request
from nlip_jax.commands.searching.places import Place, place_of_folder
from nlip_jax.data.loading import LoadImage
from nlip_jax.methods.nlip_whole import NlipWhole
from nlip_jax.train.map_examples import Mapper, id_words
from nlip_jax.types import Array, Batch, PyTree


@dataclasses.dataclass(frozen=True, kw_only=True)
class Picture:
    """A picture and what the model says of it.

    Attributes:
      image_id: its number in the folder.
      file: its name, from the folder on.
      caption: of the model; None for a picture that cannot be read.
      concepts: that the model was given, the best first.
    """

    image_id: int
    file: str
    caption: str | None
    concepts: tuple[str, ...]


def open_folder(request: Request) -> Place:
    """The pictures of a folder and of those below it.

    Raises:
      UsageError: there is no such folder, or it has none.
    """
    return place_of_folder(request.over, make_storage(request.config))


def caption_pictures(request: Request, model: CaptionModel, place: Place) -> list[Picture]:
    """Captions all pictures; several processes call it alike.

    Raises:
      RunError: none of them can be read.
    """
    mapper = Mapper(mesh=model.mesh, reading=build.make_reading(request.config))
    found = mapper.collect(
        _Caption(model.method),
        {"variables": model.variables, "retrieval": model.retrieval},
        load=_LoadNumbered(LoadImage(source=place.source, transform=model.transform)),
        num_examples=place.source.num_images,
        batch_size=model.batch_size,
    )
    rows, concepts = found.values["rows"], found.values.get("concepts")

    def picture(image_id: int) -> Picture:
        missing = bool(found.is_missing[image_id])
        words = []
        if not missing and concepts is not None:
            words = model.concepts_of(concepts[image_id])
        return Picture(
            image_id=image_id,
            file=place.file_of(image_id),
            caption=None if missing else model.text_of(rows[image_id].astype(np.int32)),
            concepts=tuple(words),
        )

    return [picture(image_id) for image_id in range(place.source.num_images)]


def describe(pictures: list[Picture]) -> str:
    """File, caption and concepts of each, in lines."""
    width = max(len(picture.file) for picture in pictures)

    def line(picture: Picture) -> str:
        said = "(cannot be read)" if picture.caption is None else picture.caption
        concepts = f"  [{', '.join(picture.concepts)}]" if picture.concepts else ""
        return f"{picture.file:{width}}  {said}{concepts}"

    return "\n".join(map(line, pictures))


def to_json(request: Request, place: Place, pictures: list[Picture]) -> dict[str, Any]:
    """What was captioned, as plain values."""
    return {
        "over": place.name,
        "step": request.step,
        "images": [
            {"file": one.file, "caption": one.caption, "concepts": list(one.concepts)}
            for one in pictures
        ],
    }


@dataclasses.dataclass(frozen=True)
class _LoadNumbered:
    """Rows with their number, of which sampled captions are made."""

    load: LoadImage

    def __call__(self, example_id: int, epoch: int) -> dict[str, np.ndarray]:
        number = id_words(np.array([example_id]))[0]
        return {**self.load(example_id, epoch), "number": number}


@dataclasses.dataclass(frozen=True)
class _Caption:
    """Concepts and captions of a batch of pictures, as floats, for NaN says "not read"."""

    method: NlipWhole

    def __call__(self, given: dict[str, PyTree], batch: Batch) -> dict[str, Array]:
        found, image = {}, batch["image"]
        inputs = {"image": image, "example_id": batch["number"]}
        if self.method.retriever is not None:
            numbers = self.method.retriever.find(self.method, given["retrieval"], image)
            inputs["concept_tokens"] = self.method.tokens_of(numbers)
            found["concepts"] = (numbers + 1).astype(jnp.float32)
        rows = self.method.synthetic_captions((given["variables"], np.int32(0)), inputs)
        return {**found, "rows": rows.astype(jnp.float32)}
