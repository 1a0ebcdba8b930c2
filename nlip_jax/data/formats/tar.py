"""Uncompressed tars as img2dataset and WebDataset write them, read in place."""

import functools
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from nlip_jax.data.failures import ReadError
from nlip_jax.data.formats.base import Scan
from nlip_jax.data.formats.reading import read_part
from nlip_jax.data.formats.tar_captions import CaptionMembers, field_values
from nlip_jax.data.formats.tar_members import BLOCK, name_at, split_name
from nlip_jax.data.formats.tar_names import sample_names
from nlip_jax.data.formats.tar_scan import scan_tar
from nlip_jax.data.formats.texts import read_texts
from nlip_jax.data.source import SampleName
from nlip_jax.data.storage import File, Storage


@dataclass(frozen=True)
class TarFormat:
    """Samples of members with one name: KEY.jpg, KEY.txt, KEY.json, in any order.

    Names are keys and nothing else: no path is followed and nothing is written.

    Attributes:
      caption_keys: "txt" or "json:FIELD"; where the first has no caption the next is asked.

    Raises:
      UsageError: a key is neither, or stands there twice.
    """

    caption_keys: tuple[str, ...] = ("txt",)

    name: ClassVar[str] = "tar"
    extensions: ClassVar[tuple[str, ...]] = ("tar",)

    def __post_init__(self) -> None:
        CaptionMembers.of(self.caption_keys)

    @property
    def num_caption_keys(self) -> int:
        """Number of caption keys."""
        return len(self.caption_keys)

    @functools.cached_property
    def members(self) -> CaptionMembers:
        """What the caption keys say."""
        return CaptionMembers.of(self.caption_keys)

    @functools.cached_property
    def row(self) -> np.dtype:
        """First block and length in bytes of the image and of every caption member."""
        names = ["image", *self.members.fields]
        return np.dtype([(f"{n}_{what}", "<u4") for n in names for what in ("block", "length")])

    def identity(self) -> dict[str, Any]:
        """The options that decide what the rows are."""
        return {"caption_keys": list(self.caption_keys)}

    def scan(self, path: str, storage: Storage) -> Scan:
        """Finds every image with captions in one shard; what is of no use is counted.

        Members with one key belong together; of two images or two caption members with the same
        key the first counts.
        """
        file = storage.open(path)
        try:
            return scan_tar(file, self.members, self.row)
        finally:
            file.close()

    def open(self, path: str, storage: Storage) -> "OpenTar":
        """Opens a shard that was scanned."""
        return OpenTar(storage.open(path), self.members)


class OpenTar:
    """A tar to read from; threads may share it.

    Args:
      file: the open tar.
      members: those of the captions.
    """

    def __init__(self, file: File, members: CaptionMembers) -> None:
        self._file, self._members = file, members

    def image(self, row: np.void) -> bytes:
        """The image file of a row."""
        block, length, *_ = row.item()
        return read_part(self._file, block * BLOCK, length)

    def captions(self, row: np.void) -> list[list[str]]:
        """Captions of a row for every caption key in turn, stripped, without blank ones."""
        _, _, *numbers = row.item()
        places = zip(numbers[::2], numbers[1::2], strict=True)
        values = {}
        for (extension, fields), (block, length) in zip(
            self._members.fields.items(), places, strict=True
        ):
            if length:
                payload = read_part(self._file, block * BLOCK, length)
                values[extension] = field_values(payload, fields)
        texts = read_texts(self._members.by_key(values))
        if texts.problem:
            raise ReadError("unreadable_caption", texts.complaint)
        return texts.by_key

    def key(self, row: np.void) -> str:
        """Name of the sample, or where it is if the name cannot be read."""
        block, *_ = row.item()
        try:
            key, _ = split_name(name_at(self._file, block))
        except OSError:
            key = ""
        readable = key.encode("utf-8", "surrogateescape").decode("utf-8", "replace")
        return readable or f"byte {block * BLOCK}"

    def sample_names(self, rows: np.ndarray) -> list[SampleName]:
        """Keys and uids of many rows, in one pass over the tar.

        Raises:
          OSError: it cannot be read.
        """
        names = sample_names(self._file)
        return [names.get(int(row["image_block"])) or SampleName(self.key(row)) for row in rows]
