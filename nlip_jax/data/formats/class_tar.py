"""Tars of labelled images, as CLIP_benchmark writes them: KEY.jpg with KEY.cls."""

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from nlip_jax.data.formats.base import Scan
from nlip_jax.data.formats.collect import Collector
from nlip_jax.data.formats.tar import OpenTar
from nlip_jax.data.formats.tar_captions import CaptionMembers
from nlip_jax.data.formats.tar_members import BLOCK, Window, split_name, tar_members
from nlip_jax.data.formats.tar_scan import IMAGE_EXTENSIONS
from nlip_jax.data.formats.texts import read_texts
from nlip_jax.data.storage import File, Storage
from nlip_jax.errors import UsageError

_MAX_DIGITS = 32  # bytes of a label
_LABELS = 1 << 32
_NO_CAPTIONS = CaptionMembers({}, {})


@dataclass(frozen=True)
class ClassTarFormat:
    """Samples of an image KEY.{jpg,jpeg,png,webp} and its label KEY.cls, a number from 0.

    A set is measured whole: a sample without one of the two, or with another label, is refused.
    The caption of an image is its label.
    """

    name: ClassVar[str] = "webdataset"
    extensions: ClassVar[tuple[str, ...]] = ("tar",)
    row: ClassVar[np.dtype] = np.dtype(
        [("image_block", "<u4"), ("image_length", "<u4"), ("label", "<u4")]
    )
    num_caption_keys: ClassVar[int] = 1

    def identity(self) -> dict[str, Any]:
        """No option decides what the rows are."""
        return {}

    def scan(self, path: str, storage: Storage) -> Scan:
        """Finds every image with its label.

        Raises:
          UsageError: the file is no uncompressed tar, is cut short, or has a sample that lacks its
            image or its label, or a label that is no number.
          OSError: it cannot be read.
        """
        file = storage.open(path)
        try:
            return _scan(file, self.row)
        finally:
            file.close()

    def open(self, path: str, storage: Storage) -> "_OpenClassTar":
        """Opens a shard that was scanned."""
        return _OpenClassTar(storage.open(path), _NO_CAPTIONS)


class _OpenClassTar(OpenTar):
    """A tar of labelled images to read from; threads may share it."""

    def captions(self, row: np.void) -> list[list[str]]:
        """The label, as a text."""
        *_, label = row.item()
        return [[str(label)]]


def _scan(file: File, row: np.dtype) -> Scan:
    images, labels = {}, {}
    collector, window = Collector(row), Window(file)
    for member in tar_members(file, window):
        if member.problem:
            complaint = f"{member.name}: {member.complaint}".lstrip(": ")
            raise UsageError(f"shard {file.path} is damaged: {complaint}; fetch it again")
        key, extension = split_name(member.name)
        found = {"cls": labels}.get(extension, images if extension in IMAGE_EXTENSIONS else None)
        if found is None:
            collector.counts["other"] += 1
        elif key in found:
            raise UsageError(f"shard {file.path} has a second {member.name}: remove one")
        elif extension == "cls":
            labels[key] = _label(window.read(member.offset, min(member.size, _MAX_DIGITS)))
            if labels[key] is None:
                raise UsageError(
                    f"shard {file.path}: {member.name} is no label: a number from 0 is needed"
                )
        elif not 0 < member.size < _LABELS:
            raise UsageError(f"shard {file.path}: {member.name} has {member.size} bytes")
        else:
            images[key] = member.offset // BLOCK, member.size
    for one, other, what in ((images, labels, "label .cls"), (labels, images, "image")):
        if lacking := [key for key in one if key not in other]:
            raise UsageError(
                f"shard {file.path}: {len(lacking)} samples have no {what}, such as {lacking[0]}"
            )
    for key, place in images.items():
        texts = read_texts({"cls": str(labels[key])})
        collector.add((*place, labels[key]), key=key, texts=texts)
    return collector.scan(file.status)


def _label(content: bytes) -> int | None:
    digits = content.strip()
    return int(digits) if digits.isdigit() and int(digits) < _LABELS else None
