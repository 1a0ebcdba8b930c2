"""Shards made on the spot: photograph-like JPEG with captions, in tars as img2dataset writes them.

What a codec has to do depends on the spectrum and the edges of an image. The power of photographs
falls with frequency as 1 / f^2 (Field 1987), every octave holding as much as the next, and objects
hide one another; so an image here is noise of that spectrum with ellipses of other such noise.
"""

import io
import json
import tarfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

QUALITY = 90
_TEXTURES, _OBJECTS = 6, 12
_COARSEST = 4  # cells along the height of a texture, doubled every octave
_CONTRAST = 0.12  # standard deviation of an octave, before interpolation

_ADJECTIVES = ("red", "small", "old", "wooden", "bright", "striped", "quiet", "broken", "golden")
_NOUNS = ("dog", "bicycle", "window", "bridge", "teapot", "mountain", "lantern", "violin", "boat")
_VERBS = ("stands", "leans", "rests", "waits", "sleeps", "shines", "hangs", "turns")
_PLACES = ("on the beach", "in a busy street", "under grey clouds", "by the river", "at night")


@dataclass(frozen=True)
class Shards:
    """What `make_shards` made.

    Attributes:
      paths: of the tars.
      captions: of every image, in order.
      images: the distinct JPEG files; image i of the shards is images[i % len(images)].
    """

    paths: tuple[str, ...]
    captions: tuple[str, ...]
    images: tuple[bytes, ...]


def make_shards(
    folder: Path,
    *,
    num_images: int,
    num_shards: int,
    distinct: int = 200,
    width: int = 640,
    height: int = 480,
    seed: int = 0,
) -> Shards:
    """Writes shards whose images repeat a smaller number of distinct ones.

    Args:
      folder: where the tars go.
      num_images: of all shards together.
      num_shards: the images are split over them evenly.
      distinct: images that are drawn and encoded.
      width: in pixels.
      height: in pixels.
      seed: of pixels and captions.
    """
    rng = np.random.default_rng(seed)
    textures = make_textures(rng, count=_TEXTURES, width=2 * width, height=2 * height)
    images = tuple(
        _encode(draw(rng, textures, width=width, height=height)) for _ in range(distinct)
    )
    captions = tuple(_caption(rng) for _ in range(num_images))
    paths = [str(folder / f"{shard:05d}.tar") for shard in range(num_shards)]
    for path, numbers in zip(paths, np.array_split(np.arange(num_images), num_shards), strict=True):
        with tarfile.open(path, "w", format=tarfile.USTAR_FORMAT) as tar:
            for number in numbers.tolist():
                caption = captions[number]
                record = {"caption": caption, "key": f"{number:09d}", "status": "success"}
                _add(tar, f"{number:09d}.jpg", images[number % distinct])
                _add(tar, f"{number:09d}.txt", caption.encode())
                _add(tar, f"{number:09d}.json", json.dumps(record).encode())
    return Shards(paths=tuple(paths), captions=captions, images=images)


def draw(rng: np.random.Generator, textures: np.ndarray, *, width: int, height: int) -> np.ndarray:
    """One image, `[height, width, 3]` uint8, out of `make_textures` of twice its size."""
    short = min(width, height)
    picture = _surface(rng, textures, width, height)
    picture += np.linspace(-1, 1, height, dtype=np.float32)[:, None, None] * rng.normal(0, 0.1, 3)
    for _ in range(_OBJECTS):
        rx, ry = (rng.uniform(0.05, 0.3, 2) * short).astype(int) + 1
        x, y = int(rng.integers(width)), int(rng.integers(height))
        left, top = max(0, x - rx), max(0, y - ry)
        part = picture[top : y + ry, left : x + rx]
        rows, columns = np.ogrid[: part.shape[0], : part.shape[1]]
        inside = ((columns + left - x) / rx) ** 2 + ((rows + top - y) / ry) ** 2 < 1
        surface = _surface(rng, textures, part.shape[1], part.shape[0])
        np.copyto(part, surface, where=inside[..., None])
    return np.clip(picture * 255, 0, 255).astype(np.uint8)


def make_textures(rng: np.random.Generator, *, count: int, width: int, height: int) -> np.ndarray:
    """Noise of all scales, `[count, height, width]` float32 around 0."""
    octaves = int(np.log2(height / _COARSEST))
    total = np.zeros((count, height, width), np.float32)
    for number in range(count):
        for octave in range(octaves):
            shape = (_COARSEST << octave, (_COARSEST << octave) * width // height)
            noise = Image.fromarray(rng.standard_normal(shape, np.float32))
            grown = np.asarray(noise.resize((width, height), Image.Resampling.BICUBIC))
            total[number] += _CONTRAST * grown
    return total


def _surface(rng: np.random.Generator, textures: np.ndarray, width: int, height: int) -> np.ndarray:
    """A window of a texture in some colour; the channels go together, as in daylight."""
    texture = rng.choice(textures)
    y, x = (int(rng.integers(n - m)) for n, m in zip(texture.shape, (height, width), strict=True))
    window = texture[y : y + height, x : x + width, None] * rng.uniform(0.4, 1.2)
    tint, base = rng.uniform(0.8, 1.2, 3), rng.uniform(0.2, 0.8, 3)
    return window * tint.astype(np.float32) + base.astype(np.float32)


def _caption(rng: np.random.Generator) -> str:
    """Twelve words or so."""
    one, two = ((rng.choice(_ADJECTIVES), rng.choice(_NOUNS)) for _ in range(2))
    verb, place = rng.choice(_VERBS), rng.choice(_PLACES)
    return f"A {one[0]} {one[1]} {verb} beside the {two[0]} {two[1]} {place}"


def _encode(pixels: np.ndarray) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "JPEG", quality=QUALITY)
    return file.getvalue()


def _add(tar: tarfile.TarFile, name: str, data: bytes) -> None:
    member = tarfile.TarInfo(name)
    member.size = len(data)
    tar.addfile(member, io.BytesIO(data))
