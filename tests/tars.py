"""Small tar shards for the tests of what reads them."""

import io
import json
import tarfile

import numpy as np
from PIL import Image


def pixels(seed, h=24, w=32):
    """A smooth random image: JPEG keeps it nearly as it is."""
    noise = np.random.default_rng(seed).integers(0, 256, (3, 4, 3), np.uint8)
    return np.array(Image.fromarray(noise).resize((w, h), Image.Resampling.BICUBIC))


def encode(image, fmt="JPEG", **options):
    """An image file."""
    image = image if isinstance(image, Image.Image) else Image.fromarray(image)
    file = io.BytesIO()
    image.save(file, fmt, **options)
    return file.getvalue()


def sample(key, captions, seed=0):
    """Members of one sample as img2dataset writes them, with several captions in the JSON."""
    record = {"caption": captions[0] if captions else None, "width": 32, "captions": captions}
    return {
        f"{key}.jpg": encode(pixels(seed)),
        f"{key}.txt": (captions[0] if captions else "").encode(),
        f"{key}.json": json.dumps(record).encode(),
    }


def write_tar(path, members, fmt=tarfile.USTAR_FORMAT):
    """Writes a tar of {name: bytes} or [(name, bytes)]; returns its path as text."""
    with tarfile.open(path, "w", format=fmt) as tar:
        for name, data in members.items() if isinstance(members, dict) else members:
            member = tarfile.TarInfo(name)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    return str(path)


def read_tar(path):
    """{name: bytes} of a tar, by the standard library."""
    with tarfile.open(path) as tar:
        return {member.name: tar.extractfile(member).read() for member in tar if member.isreg()}
