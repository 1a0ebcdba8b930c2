"""Folders of images, one a class, without any list of them."""

import functools
import hashlib
import os
import posixpath
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from nlip_jax.data.formats.base import Scan
from nlip_jax.data.formats.collect import Collector
from nlip_jax.data.formats.reading import is_image_name, read_image_file
from nlip_jax.data.formats.texts import read_texts
from nlip_jax.data.storage import Storage


@dataclass(frozen=True)
class ClassFolderFormat:
    """A folder CLASS of images on a local disk; each folder is a shard and its name the caption.

    Images that come or go change the time of the folder, which an index notices.
    """

    name: ClassVar[str] = "image_folder"
    extensions: ClassVar[tuple[str, ...]] = ("",)
    row: ClassVar[np.dtype] = np.dtype([("file", "<u8")])
    num_caption_keys: ClassVar[int] = 1

    def identity(self) -> dict[str, Any]:
        """No option decides what the rows are."""
        return {}

    def scan(self, path: str, storage: Storage) -> Scan:
        """Finds the images in a folder, not in folders within it."""
        status, collector = storage.status(path), Collector(self.row)
        texts = read_texts({"folder": posixpath.basename(path)})
        with os.scandir(path) as entries:
            names = sorted(entry.name for entry in entries)
        for name in names:
            if is_image_name(name):
                # With the whole path: splits have folders and often files of the same names.
                collector.add((_digest(name),), key=posixpath.join(path, name), texts=texts)
            else:
                collector.counts["other"] += 1
        return collector.scan(status)

    def open(self, path: str, storage: Storage) -> "_OpenFolder":
        """Opens a folder that was scanned."""
        return _OpenFolder(path, storage)


class _OpenFolder:
    """Finds images by the checksum of their name."""

    def __init__(self, path: str, storage: Storage) -> None:
        self._path, self._storage = path, storage

    def image(self, row: np.void) -> bytes:
        return read_image_file(self.key(row), self._storage)

    def captions(self, row: np.void) -> list[list[str]]:
        del row
        return read_texts({"folder": posixpath.basename(self._path)}).by_key

    def key(self, row: np.void) -> str:
        (digest,) = row.item()
        return posixpath.join(self._path, self._files.get(digest, "(an image that is gone)"))

    @functools.cached_property
    def _files(self) -> dict[int, str]:
        return {_digest(name): name for name in os.listdir(self._path) if is_image_name(name)}


def _digest(name: str) -> int:
    digest = hashlib.blake2b(name.encode("utf-8", "surrogatepass"), digest_size=8).digest()
    return int.from_bytes(digest, "little")
