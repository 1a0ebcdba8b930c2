"""What the index and the indexed source ask of a kind of shard: scan it once, then read rows."""

from collections import Counter
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from nlip_jax.data.storage import Storage

# What a scan counts: images and captions kept, and what was left out.
COUNTS = {
    "images": "images kept",
    "captions": "captions of them",
    "without_caption": "images without a caption, or without the field in it",
    "unreadable_caption": "images whose captions are no UTF-8, no JSON object, no text",
    "blank_caption": "images whose captions are blank",
    "unusable_image": "images that are empty or over 4 GiB",
    "without_image": "captions without an image",
    "duplicate": "second images and second captions of one key",
    "truncated": "members cut short by the end of their shard, and shards without an end mark",
    "not_a_file": "links, devices and other members that are no plain file",
    "other": "members that are neither images nor captions, by their extensions",
}


@dataclass(frozen=True)
class Scan:
    """What one shard holds.

    Attributes:
      size: bytes of the shard when it was scanned.
      modified_ns: its modification time.
      rows: `[n]` structured array of the format's `row` dtype, by position of the image.
      captions: `[n]` uint32, number of captions of every image, at least 1.
      digest: hexadecimal, over keys and captions in the order of rows.
      counts: by the names in `COUNTS`.
      complaint: why the first image that was left out was; empty if none was.
    """

    size: int
    modified_ns: int
    rows: np.ndarray
    captions: np.ndarray
    digest: str
    counts: Counter
    complaint: str = ""


class OpenShard(Protocol):
    """A shard to read from; threads may share it."""

    def image(self, row: np.void) -> bytes:
        """The image file of a row.

        Raises:
          ReadError: it cannot be read.
        """
        ...

    def captions(self, row: np.void) -> list[list[str]]:
        """Captions of a row for every caption key in turn, stripped, without blank ones.

        Raises:
          ReadError: they cannot be read.
        """
        ...

    def key(self, row: np.void) -> str:
        """Name of the sample, for messages; never raises."""
        ...


class Format(Protocol):
    """A kind of shard; a frozen dataclass of options, picklable."""

    name: str  # as in the config
    extensions: tuple[str, ...]  # that its shards usually have, for messages
    row: np.dtype  # where one image and its captions lie in their shard, at most 24 bytes
    num_caption_keys: int

    def identity(self) -> dict[str, Any]:
        """The options that decide what the rows are, as plain JSON values."""
        ...

    def scan(self, path: str, storage: Storage) -> Scan:
        """Finds every image with captions in one shard; what is of no use is counted.

        Of several caption keys the first that gives a caption decides how many there are.

        Raises:
          UsageError: the shard as a whole cannot be used (no such format, no such column, ...).
          OSError: it cannot be read.
        """
        ...

    def open(self, path: str, storage: Storage) -> OpenShard:
        """Opens a shard that was scanned.

        Raises:
          OSError: it cannot be opened.
        """
        ...
