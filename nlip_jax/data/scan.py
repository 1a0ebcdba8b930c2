"""One pass over one tar shard: where its images and captions lie."""

import hashlib
import json
import os
import tarfile
from collections import Counter
from dataclasses import dataclass, field
from typing import BinaryIO

import numpy as np

from nlip_jax.data.captions import MissingField, caption_member, parse_captions
from nlip_jax.data.shards import Shard
from nlip_jax.data.tar_members import BLOCK, payload, split_name, tar_members
from nlip_jax.errors import UsageError

IMAGE_EXTENSIONS = ("jpg", "jpeg", "png", "webp")

# One image with its captions: first blocks and lengths in bytes of the two members.
ROW = np.dtype(
    [
        ("shard", "<u4"),
        ("image_block", "<u4"),
        ("image_length", "<u4"),
        ("text_block", "<u4"),
        ("text_length", "<u4"),
    ]
)

# What a scan counts: images and captions kept, and what was left out.
COUNTS = (
    "images",
    "captions",
    "without_caption",  # images without a caption member, or without the field in it
    "unreadable_caption",  # images
    "blank_caption",  # images
    "unusable_image",  # empty or over 4 GiB
    "without_image",  # caption members
    "duplicate",  # second images, second caption members
)

_MAX_IMAGE, _MAX_TEXT = 1 << 32, 1 << 24  # bytes


@dataclass(frozen=True)
class Scan:
    """What one shard holds.

    Attributes:
      shard: the file.
      rows: `[n]` ROW by position of the image; `shard` is 0 in them.
      captions: `[n]` uint32, number of captions of every image, at least 1.
      digest: hexadecimal, over the captions.
      counts: by the names in `COUNTS`.
      complaint: why the first image without captions has none; empty if all have.
    """

    shard: Shard
    rows: np.ndarray
    captions: np.ndarray
    digest: str
    counts: Counter
    complaint: str


@dataclass(frozen=True)
class _Text:
    """A caption member; without captions, the count it falls under and why."""

    block: int = 0
    length: int = 0
    captions: list[str] = field(default_factory=list)
    problem: str = ""
    complaint: str = ""


_NO_TEXT = _Text(problem="without_caption", complaint="no caption member")


def scan_shard(path: str, caption_key: str) -> Scan:
    """Finds every image with captions in one shard.

    Members with one key belong together, in any order; of two images or two caption members with
    the same key the first counts.

    Args:
      path: an uncompressed tar.
      caption_key: see `caption_member`.

    Raises:
      UsageError: the file cannot be read as one whole, uncompressed tar.
    """
    try:
        with open(path, "rb") as file:
            status = os.fstat(file.fileno())
            images, texts, counts = _find(path, file, caption_key)
    except OSError as error:
        raise UsageError(f"shard {path} cannot be read: {error.strerror}") from error
    rows, captions, digest, complaint = [], [], hashlib.blake2b(digest_size=16), ""
    for key, (image_block, image_length) in images.items():
        text = texts.get(key, _NO_TEXT)
        if text.captions:
            rows.append((0, image_block, image_length, text.block, text.length))
            captions.append(len(text.captions))
            digest.update("\0".join([*text.captions, ""]).encode())
        else:
            counts[text.problem] += 1
            complaint = complaint or f"{key}: {text.complaint}"
    counts.update(
        images=len(rows),
        captions=sum(captions),
        without_image=len(texts.keys() - images.keys()),
    )
    return Scan(
        shard=Shard(path, status.st_size, status.st_mtime_ns),
        rows=np.array(rows, ROW),
        captions=np.array(captions, np.uint32),
        digest=digest.hexdigest(),
        counts=counts,
        complaint=complaint,
    )


def describe_sample(path: str) -> str:
    """What the first sample of a shard consists of, for whoever looked for something else."""
    with open(path, "rb") as file:
        samples = {}
        for member in tar_members(path, file):
            key, extension = split_name(member.name)
            samples.setdefault(key, {})[extension] = member
        if not samples:
            return "it has no members"
        # The first with an image if there is one, else the first: False comes before True.
        sample = min(
            samples.values(), key=lambda members: members.keys().isdisjoint(IMAGE_EXTENSIONS)
        )
        text = "its members end in " + " ".join(f".{extension}" for extension in sample)
        if "json" in sample:
            fields = _text_fields(payload(file, sample["json"]))
            text += f"; json fields with text: {', '.join(fields) or 'none'}"
        return text


def _find(
    path: str, file: BinaryIO, caption_key: str
) -> tuple[dict[str, tuple[int, int]], dict[str, _Text], Counter]:
    """The images (block, length) and the caption members by key, and what is of no use."""
    caption_extension, json_field = caption_member(caption_key)
    images, texts, counts = {}, {}, Counter()
    for member in tar_members(path, file):
        key, extension = split_name(member.name)
        if extension in IMAGE_EXTENSIONS:
            if key in images:
                counts["duplicate"] += 1
            elif 0 < member.size < _MAX_IMAGE:
                images[key] = (member.offset_data // BLOCK, member.size)
            else:
                counts["unusable_image"] += 1
        elif extension == caption_extension:
            if key in texts:
                counts["duplicate"] += 1
            else:
                texts[key] = _read_text(file, member, json_field)
    return images, texts, counts


def _read_text(file: BinaryIO, member: tarfile.TarInfo, json_field: str | None) -> _Text:
    if member.size > _MAX_TEXT:
        complaint = f"{member.size} bytes of text"
        return _Text(problem="unreadable_caption", complaint=complaint)
    try:
        captions = parse_captions(payload(file, member), json_field)
    except MissingField as error:
        return _Text(problem="without_caption", complaint=str(error))
    except ValueError as error:
        return _Text(problem="unreadable_caption", complaint=str(error))
    if not captions:
        return _Text(problem="blank_caption", complaint="blank")
    return _Text(member.offset_data // BLOCK, member.size, captions)


def _text_fields(data: bytes) -> list[str]:
    def has_text(name: str) -> bool:
        try:
            return bool(parse_captions(data, name))
        except ValueError:
            return False

    try:
        record = json.loads(data)
    except ValueError:
        return []
    return [name for name in record if has_text(name)] if isinstance(record, dict) else []
