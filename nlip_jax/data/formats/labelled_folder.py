"""Folders of labelled images beside a list of them."""

import functools
import glob
import hashlib
import posixpath
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from nlip_jax.data.formats.base import Scan
from nlip_jax.data.formats.class_names import (
    Labels,
    caption_checksum,
    check_template,
    read_class_names,
)
from nlip_jax.data.formats.collect import Collector
from nlip_jax.data.formats.reading import is_image_name, read_image_file, resolve
from nlip_jax.data.formats.texts import read_texts
from nlip_jax.data.storage import Storage


@dataclass(frozen=True)
class LabelledFolderFormat:
    """Folders of images beside a JSON file with parallel lists "folders" and "classnames".

    That file is the shard: images that are added later are not seen, and those that are removed
    are found missing when they are read. Many small files are slow to list and to read: a ZIP file
    of the same folders (see `LabelledFormat`) is not.

    Attributes:
      template: the caption, with {} for the name of the class.

    Raises:
      UsageError: a template without {}.
    """

    template: str = "a photo of a {}."

    name: ClassVar[str] = "labelled_folder"
    extensions: ClassVar[tuple[str, ...]] = ("json",)
    row: ClassVar[np.dtype] = np.dtype([("folder", "<u4"), ("file", "<u8"), ("caption", "<u4")])
    num_caption_keys: ClassVar[int] = 1

    def __post_init__(self) -> None:
        check_template(self.template)

    def identity(self) -> dict[str, Any]:
        """The options that decide what the rows are."""
        return {"template": self.template}

    def scan(self, path: str, storage: Storage) -> Scan:
        """Finds the images in the folders."""
        status, names = storage.status(path), read_class_names(path, storage)
        labels, collector = Labels(self.template, names), Collector(self.row)
        for number, folder in enumerate(names):
            caption = labels.caption(folder)
            checksum, texts = caption_checksum(caption), read_texts({"folder": caption})
            files = _list(path, folder, storage)
            for file in files:
                row = (number, _digest(file), checksum)
                collector.add(row, key=posixpath.join(folder, file), texts=texts)
            collector.counts["without_image"] += not files
        return collector.scan(status)

    def open(self, path: str, storage: Storage) -> "_OpenFolders":
        """Opens a list of folders that was scanned."""
        return _OpenFolders(path, Labels(self.template, read_class_names(path, storage)), storage)


class _OpenFolders:
    """Finds images by the checksum of their name, so that others may come and go."""

    def __init__(self, path: str, labels: Labels, storage: Storage) -> None:
        self._path, self._labels, self._storage = path, labels, storage
        self._folders = list(labels.names)
        self._files = functools.cache(self._list)

    def image(self, row: np.void) -> bytes:
        where = resolve(self.key(row), shard=self._path, root="")
        return read_image_file(where, self._storage)

    def captions(self, row: np.void) -> list[list[str]]:
        number, _, checksum = row.item()
        return self._labels.checked_caption(self._folders[number], checksum)

    def key(self, row: np.void) -> str:
        number, digest, _ = row.item()
        try:
            file = self._files(number).get(digest, "(an image that is gone)")
        except OSError:
            file = "(a folder that cannot be listed)"
        return posixpath.join(self._folders[number], file)

    def _list(self, number: int) -> dict[int, str]:
        files = _list(self._path, self._folders[number], self._storage)
        return {_digest(file): file for file in files}


def _list(path: str, folder: str, storage: Storage) -> list[str]:
    """Names of the images in a folder beside the file at `path`, sorted."""
    here = resolve(folder, shard=path, root="")
    found = storage.glob(posixpath.join(glob.escape(here), "*"))
    return [posixpath.basename(file) for file in found if is_image_name(file)]


def _digest(name: str) -> int:
    digest = hashlib.blake2b(name.encode("utf-8", "surrogatepass"), digest_size=8).digest()
    return int.from_bytes(digest, "little")
