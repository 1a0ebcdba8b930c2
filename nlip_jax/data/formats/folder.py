"""A folder of images with a file of captions."""

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from nlip_jax.data.failures import ReadError
from nlip_jax.data.formats.base import Scan
from nlip_jax.data.formats.caption_files import parse_caption_file
from nlip_jax.data.formats.collect import Collector
from nlip_jax.data.formats.reading import read_image_file, resolve
from nlip_jax.data.formats.texts import read_texts
from nlip_jax.data.storage import File, Storage
from nlip_jax.errors import UsageError

_KEY = "captions"


@dataclass(frozen=True)
class FolderFormat:
    """A captions file and the images it names; the file is the shard.

    See `parse_caption_file` for what it may look like. Every process holds it in memory, about 300
    MB for the 590,000 captions of COCO; a table or tars suit many millions. Whether an image exists
    is found when it is read. Paths may be absolute, remote, or lead out of `root`.

    Attributes:
      root: folder that relative paths start from; empty takes the folder of the captions file.
      splits: takes only images whose record has one of these as "split"; empty takes all.
      language: takes the captions that records have under this name, as in Crossmodal-3600; empty
        for records with captions of one language.
    """

    root: str = ""
    splits: tuple[str, ...] = ()
    language: str = ""

    name: ClassVar[str] = "folder"
    extensions: ClassVar[tuple[str, ...]] = ("json", "jsonl", "txt", "token")
    row: ClassVar[np.dtype] = np.dtype([("image", "<u4")])
    num_caption_keys: ClassVar[int] = 1

    def identity(self) -> dict[str, Any]:
        """The options that decide what the rows are."""
        options = {"splits": list(self.splits)}
        return options | {"language": self.language} if self.language else options

    def scan(self, path: str, storage: Storage) -> Scan:
        """Finds the images with captions."""
        file = storage.open(path)
        try:
            captions = self._parse(path, file)
            collector = Collector(self.row)
            for number, (name, values) in enumerate(captions.items()):
                if name:
                    texts = read_texts({_KEY: values or None})
                    collector.add((number,), key=name, texts=texts)
                else:
                    collector.counts["without_image"] += len(values)
            return collector.scan(file.status)
        finally:
            file.close()

    def open(self, path: str, storage: Storage) -> "_OpenFolder":
        """Opens a captions file that was scanned."""
        file = storage.open(path)
        try:
            return _OpenFolder(self, path, self._parse(path, file), storage)
        finally:
            file.close()

    def _parse(self, path: str, file: File) -> dict[str, list[Any]]:
        data = file.read(0, file.status.size)
        try:
            return parse_caption_file(data, splits=self.splits, language=self.language)
        except ValueError as error:
            raise UsageError(f"captions file {path}: {error}") from error


class _OpenFolder:
    """Images by the number of their name in the captions file."""

    def __init__(
        self, layout: FolderFormat, path: str, captions: dict[str, list[Any]], storage: Storage
    ) -> None:
        self._layout, self._path, self._storage = layout, path, storage
        self._names, self._captions = list(captions), list(captions.values())

    def image(self, row: np.void) -> bytes:
        path = resolve(self._names[row["image"]], shard=self._path, root=self._layout.root)
        return read_image_file(path, self._storage)

    def captions(self, row: np.void) -> list[list[str]]:
        texts = read_texts({_KEY: self._captions[row["image"]]})
        if texts.problem:
            raise ReadError("unreadable_caption", texts.complaint)
        return texts.by_key

    def key(self, row: np.void) -> str:
        return self._names[row["image"]]
