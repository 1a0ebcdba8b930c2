"""Small pictures inside the page, as data URIs."""

import base64
import io
from typing import NamedTuple

import numpy as np
from PIL import Image

TINY = 96  # pixels: up to here a picture is kept losslessly and enlarged without blur
LARGEST = 256  # pixels: what a thumbnail needs on a screen of double density


class Thumbnail(NamedTuple):
    """The source of an `<img>` and whether its pixels should stay visible when enlarged."""

    uri: str
    pixelated: bool


def thumbnail(image: np.ndarray, largest: int = LARGEST) -> Thumbnail:
    """Encodes an image for inlining: PNG where it is tiny, a reduced JPEG otherwise.

    Args:
        image: `[h, w, 3]` uint8 RGB.
        largest: longer side of the result in pixels, where the image is larger.
    """
    picture = Image.fromarray(image)
    tiny = max(picture.size) <= TINY
    picture.thumbnail((largest, largest))
    buffer = io.BytesIO()
    picture.save(buffer, format="PNG" if tiny else "JPEG", quality=85, optimize=True)
    encoded = base64.b64encode(buffer.getvalue()).decode("ascii")
    return Thumbnail(f"data:image/{'png' if tiny else 'jpeg'};base64,{encoded}", tiny)
