"""Captions line by line, and their images line by line in a list of its own, as Multi30K has it."""

import re
import zlib
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from nlip_jax.data.failures import ReadError
from nlip_jax.data.formats.base import Scan
from nlip_jax.data.formats.collect import Collector
from nlip_jax.data.formats.reading import read_image_file, resolve
from nlip_jax.data.formats.texts import read_texts
from nlip_jax.data.storage import Storage
from nlip_jax.errors import UsageError

_KEY = "line"
_NUMBER = re.compile(r"#\d+$")  # of the caption among those of an image


@dataclass(frozen=True)
class LinesFormat:
    """A text with a caption on each line; line i describes the image on line i of a list.

    A list may name an image more than once: it has several captions then. Of a line such as
    `a.jpg#0`, as Flickr30k counts them, what stands before the number is the image.

    Attributes:
      images: the list, one file name a line.
      root: folder that relative names start from; empty takes the folder of the list.

    Raises:
      UsageError: no list is named.
    """

    images: str
    root: str = ""

    name: ClassVar[str] = "lines"
    extensions: ClassVar[tuple[str, ...]] = ("txt",)
    # The list is no shard: by the checksum of its name a row knows its image again.
    row: ClassVar[np.dtype] = np.dtype([("line", "<u4"), ("name", "<u4")])
    num_caption_keys: ClassVar[int] = 1

    def __post_init__(self) -> None:
        if not self.images:
            raise UsageError("lines.images is empty: name the list of images, one a line")

    def identity(self) -> dict[str, Any]:
        """The options that decide what the rows are; they have checksums of the images' names."""
        return {}

    def scan(self, path: str, storage: Storage) -> Scan:
        """Finds the images with captions.

        Raises:
          UsageError: the list cannot be read, or has another number of lines.
        """
        file = storage.open(path)
        try:
            collector = Collector(self.row)
            names, captions = self.read(path, storage)
            by_image: dict[str, list[int]] = {}
            for number, name in enumerate(names):
                by_image.setdefault(name, []).append(number)
            for name, numbers in by_image.items():
                texts = read_texts({_KEY: [captions[number] for number in numbers]})
                collector.add((numbers[0], _checksum(name)), key=name, texts=texts)
            return collector.scan(file.status)
        finally:
            file.close()

    def open(self, path: str, storage: Storage) -> "_OpenLines":
        """Opens a text that was scanned."""
        return _OpenLines(self, path, *self.read(path, storage), storage)

    def read(self, path: str, storage: Storage) -> tuple[list[str], list[str]]:
        """Names of the images and captions, line by line.

        Raises:
          UsageError: the list cannot be read, or has another number of lines.
        """
        try:
            names = [_NUMBER.sub("", line.strip()) for line in _lines(self.images, storage)]
        except OSError as error:
            raise UsageError(
                f"images={self.images!r} cannot be read ({error.strerror or error})"
            ) from error
        captions = _lines(path, storage)
        if len(names) != len(captions):
            raise UsageError(
                f"{path} has {len(captions)} lines, and {self.images} names {len(names)} images: "
                "line i must describe image i"
            )
        return names, captions


class _OpenLines:
    """Images and captions by the number of their line."""

    def __init__(
        self,
        layout: LinesFormat,
        path: str,
        names: list[str],
        captions: list[str],
        storage: Storage,
    ) -> None:
        self._layout, self._path, self._storage = layout, path, storage
        self._names = names
        self._captions: dict[str, list[str]] = {}
        for name, caption in zip(names, captions, strict=True):
            self._captions.setdefault(name, []).append(caption)

    def image(self, row: np.void) -> bytes:
        name = self._checked(row, "missing_image")
        path = resolve(name, shard=self._layout.images, root=self._layout.root)
        return read_image_file(path, self._storage)

    def captions(self, row: np.void) -> list[list[str]]:
        return read_texts({_KEY: self._captions[self._checked(row, "unreadable_caption")]}).by_key

    def key(self, row: np.void) -> str:
        line = int(row["line"])
        return self._names[line] if line < len(self._names) else f"line {line}"

    def _checked(self, row: np.void, kind: str) -> str:
        name = self.key(row)
        if _checksum(name) != row["name"]:
            raise ReadError(kind, f"{name!r} is not what {self._layout.images} named there before")
        return name


def _checksum(name: str) -> int:
    return zlib.crc32(name.encode("utf-8", "replace"))


def _lines(path: str, storage: Storage) -> list[str]:
    """The lines of a text in UTF-8; the last may lack its end."""
    file = storage.open(path)
    try:
        text = file.read(0, file.status.size).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise UsageError(f"{path} is no text in UTF-8: {error}") from error
    finally:
        file.close()
    # Not by splitlines(), which splits at more than line ends.
    return [line.strip("\r") for line in text.removesuffix("\n").split("\n")]
