"""The images of a data set: each with its captions, as it is written."""

import bisect
import io
import itertools
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from PIL import Image

from nlip_jax.data.failures import ReadError
from nlip_jax.data.images.decode import to_pixels
from nlip_jax.data.images.header import image_size
from nlip_jax.data.members import Ranges
from nlip_jax.data.source import Picture, Source

_QUALITY = 90  # of JPEGs made of images that were shrunk


@dataclass(frozen=True)
class Span:
    """The images [start, stop) of a data set."""

    start: int
    stop: int


def spans(num_images: int, count: int) -> list[Span]:
    """Cuts a data set into `count` parts of equal size, to within one image."""
    bounds = [part * num_images // count for part in range(count + 1)]
    return [Span(*pair) for pair in itertools.pairwise(bounds)]


def examples_by_image(source: Source, span: Span) -> Iterator[tuple[int, list[int]]]:
    """Every image that has examples, with their ids; those in holes are left out."""
    start, stop = (
        bisect.bisect_left(range(len(source)), image, key=source.image_id)
        for image in (span.start, span.stop)
    )
    if start == stop:
        return
    left = start + np.flatnonzero(Ranges(len(source), source.holes).mask(start, stop))
    for image_id, ids in itertools.groupby(left.tolist(), key=source.image_id):
        yield image_id, list(ids)


def read_captions(source: Source, ids: list[int], counts: Counter) -> list[str]:
    """The captions of examples; one that cannot be read is counted as "unreadable KIND"."""
    captions = []
    for example_id in ids:
        try:
            captions.append(source.caption(example_id))
        except ReadError as error:
            counts[f"unreadable {error.kind}"] += 1
    return captions


def picture_size(picture: Picture, *, max_pixels: int) -> tuple[int, int]:
    """Height and width in pixels; of a file by its header.

    Raises:
      ReadError: it is no image, or has more than `max_pixels` pixels.
    """
    height, width = image_size(picture) if isinstance(picture, bytes) else picture.shape[:2]
    if height * width > max_pixels:
        raise ReadError("too_many_pixels", f"{width} x {height}, the limit is {max_pixels}")
    return height, width


def image_file(picture: Picture) -> bytes:
    """The file that is written for an image: itself, or a PNG of pixels, which loses nothing."""
    return picture if isinstance(picture, bytes) else _encode(Image.fromarray(picture), "PNG")


def shrunk_file(picture: Picture, max_side: int) -> bytes:
    """A JPEG of an image whose longer side becomes `max_side` pixels.

    Raises:
      ReadError: it cannot be decoded.
    """
    image = Image.fromarray(to_pixels(picture))
    factor = max_side / max(image.size)
    size = [max(1, round(side * factor)) for side in image.size]
    small = image.resize(size, Image.Resampling.LANCZOS, reducing_gap=3.0)
    return _encode(small, "JPEG", quality=_QUALITY)


def _encode(image: Image.Image, kind: str, **options: int) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()
