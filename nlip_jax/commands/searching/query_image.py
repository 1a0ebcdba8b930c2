"""The image of a query, looked at before anything is compiled."""

import dataclasses

import numpy as np

from nlip_jax.build.sources import make_storage
from nlip_jax.commands.searching.request import Request
from nlip_jax.data.failures import ReadError
from nlip_jax.data.formats.reading import read_image_file
from nlip_jax.data.images.decode import decode
from nlip_jax.data.source import Source
from nlip_jax.data.sources.image_files import ImageFiles
from nlip_jax.errors import UsageError


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class QueryImage:
    """An image to search with.

    Attributes:
      source: of this one image.
      pixels: `[h, w, 3]` uint8 RGB.
    """

    source: Source
    pixels: np.ndarray


def open_query_image(request: Request) -> QueryImage:
    """Reads and decodes the image of a query.

    Raises:
      UsageError: there is no such file, or it is no image.
    """
    storage = make_storage(request.config)
    try:
        data = read_image_file(request.image, storage)
        pixels = decode(data, max_pixels=request.config.data.max_pixels)
    except ReadError as error:
        raise UsageError(f"--image={request.image} cannot be used: {error}") from error
    source = ImageFiles([request.image], storage=storage, named_in="--image")
    return QueryImage(source=source, pixels=pixels)
