"""One pass over one tar: where its images and captions lie."""

import dataclasses
from typing import Any

import numpy as np

from nlip_jax.data.formats.base import Scan
from nlip_jax.data.formats.collect import Collector
from nlip_jax.data.formats.tar_captions import MAX_BYTES, CaptionMembers, field_values, text_fields
from nlip_jax.data.formats.tar_members import BLOCK, Member, Window, split_name, tar_members
from nlip_jax.data.formats.texts import read_texts
from nlip_jax.data.storage import File

IMAGE_EXTENSIONS = ("jpg", "jpeg", "png", "webp")

_MAX_IMAGE = 1 << 32  # bytes

_Place = tuple[int, int]  # first block, length in bytes
_Text = tuple[_Place, list[Any]]  # of a caption member: its place, and what its fields hold


def scan_tar(file: File, members: CaptionMembers, row: np.dtype) -> Scan:
    """Finds every image with captions.

    Args:
      file: an open tar.
      members: those of the captions.
      row: structured dtype: first block and length of the image and of each caption member.

    Raises:
      UsageError: the file is no uncompressed tar.
      OSError: it cannot be read.
    """
    collector = Collector(row)
    images, texts = _find(file, members, collector)
    for key, image in images.items():
        mine = {e: found[key] for e, found in texts.items() if key in found}
        captions = read_texts(members.by_key({e: values for e, (_, values) in mine.items()}))
        pairs = zip(members.keys.values(), captions.by_key, strict=True)
        used = {extension for (extension, _), found in pairs if found}
        places = (mine[e][0] if e in used else (0, 0) for e in members.fields)
        collector.add((*image, *(n for p in places for n in p)), key=key, texts=captions)
    collector.counts["without_image"] += len(set().union(*texts.values()) - images.keys())
    scan = collector.scan(file.status)
    if len(scan.rows):
        return scan
    return dataclasses.replace(scan, complaint=_describe(file, scan.complaint))


def _find(
    file: File, members: CaptionMembers, collector: Collector
) -> tuple[dict[str, _Place], dict[str, dict[str, _Text]]]:
    """The images by key, the caption members by extension and key; the rest is counted."""
    images, texts = {}, {extension: {} for extension in members.fields}
    window = Window(file)
    for member in tar_members(file, window):
        name, size = member.name, member.size
        key, extension = split_name(name)
        place = (member.offset // BLOCK, size)
        if member.problem:
            collector.leave_out(member.problem, f"{name}: {member.complaint}".lstrip(": "))
        elif extension in IMAGE_EXTENSIONS:
            if key in images:
                collector.leave_out("duplicate", f"{name}: a second image")
            elif 0 < size < _MAX_IMAGE:
                images[key] = place
            else:
                collector.leave_out("unusable_image", f"{name}: {size} bytes")
        elif extension in texts:
            if key in texts[extension]:
                collector.leave_out("duplicate", f"{name}: a second caption member")
            else:
                texts[extension][key] = place, _values(window, member, members.fields[extension])
        else:
            collector.counts["other"] += 1
    return images, texts


def _values(window: Window, member: Member, fields: list[str | None]) -> list[Any]:
    if member.size > MAX_BYTES:
        return [ValueError(f"{member.size} bytes of text")] * len(fields)
    return field_values(window.read(member.offset, member.size), fields)


def _describe(file: File, complaint: str) -> str:
    """What the first sample of a tar consists of, for whoever looked for something else."""
    window, samples = Window(file), {}
    for member in tar_members(file, window):
        if not member.problem:
            key, extension = split_name(member.name)
            samples.setdefault(key, {})[extension] = member
    parts = [complaint] if complaint else []
    if not samples:
        return "; ".join([*parts, "it has no members"])
    # The first with an image if there is one, else the first: False comes before True.
    sample = min(samples.values(), key=lambda found: found.keys().isdisjoint(IMAGE_EXTENSIONS))
    parts.append("its members end in " + " ".join(f".{extension}" for extension in sample))
    if "json" in sample and sample["json"].size <= MAX_BYTES:
        payload = window.read(sample["json"].offset, sample["json"].size)
        parts.append(f"json fields with text: {', '.join(text_fields(payload)) or 'none'}")
    return "; ".join(parts)
