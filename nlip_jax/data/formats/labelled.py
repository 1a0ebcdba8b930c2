"""ZIP files of labelled images."""

import posixpath
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from nlip_jax.data.failures import ReadError
from nlip_jax.data.formats.base import Scan
from nlip_jax.data.formats.class_names import (
    FolderNames,
    Labels,
    check_template,
    read_class_names,
)
from nlip_jax.data.formats.collect import Collector
from nlip_jax.data.formats.reading import is_image_name
from nlip_jax.data.formats.texts import read_texts
from nlip_jax.data.formats.zip_members import read_member, zip_members, zip_name
from nlip_jax.data.storage import File, Storage
from nlip_jax.errors import UsageError

_RESOURCES = "__MACOSX/"  # where macOS puts a file of its own for every image


@dataclass(frozen=True)
class LabelledFormat:
    """A ZIP file of CLASS/IMAGE.jpg; the folder an image is in tells its caption.

    Members are read in place and best stored uncompressed (`zip -0 -r data.zip FOLDER`), since
    compressed ones are decompressed at every reading.

    Attributes:
      template: the caption, with {} for the name of the class.
      class_names: JSON file with parallel lists "folders" and "classnames"; empty takes the names
        of folders, with spaces for _.

    Raises:
      UsageError: a template without {}.
    """

    template: str = "a photo of a {}."
    class_names: str = ""

    name: ClassVar[str] = "labelled"
    extensions: ClassVar[tuple[str, ...]] = ("zip",)
    row: ClassVar[np.dtype] = np.dtype(
        [("offset", "<u8"), ("packed", "<u4"), ("size", "<u4"), ("caption", "<u4")]
    )
    num_caption_keys: ClassVar[int] = 1

    def __post_init__(self) -> None:
        check_template(self.template)

    def identity(self) -> dict[str, Any]:
        """The options that decide what the rows are; they have checksums of the captions."""
        return {"template": self.template}

    def scan(self, path: str, storage: Storage) -> Scan:
        """Finds the images in folders."""
        try:
            labels = self._labels(storage)
        except OSError as error:
            raise UsageError(
                f"class_names={self.class_names!r} cannot be read ({error.strerror or error})"
            ) from error
        file = storage.open(path)
        try:
            collector, names = Collector(self.row), set()
            for member in zip_members(file):
                folder = _folder(member.name)
                if not is_image_name(member.name) or member.name.startswith(_RESOURCES):
                    collector.counts["other"] += 1
                elif member.problem:
                    collector.leave_out(member.problem, f"{member.name}: {member.complaint}")
                elif member.name in names:
                    collector.leave_out("duplicate", f"{member.name}: a second one")
                else:
                    names.add(member.name)
                    caption = labels.caption(folder) if folder else None
                    row = (member.offset, member.packed, member.size)
                    checksum = labels.checksum(caption or "")
                    texts = read_texts({"folder": caption})
                    collector.add((*row, checksum), key=member.name, texts=texts)
            return collector.scan(file.status)
        except ValueError as error:
            raise UsageError(f"{path} is no whole ZIP file: {error}") from error
        finally:
            file.close()

    def open(self, path: str, storage: Storage) -> "_OpenZip":
        """Opens a ZIP file that was scanned."""
        return _OpenZip(storage.open(path), self._labels(storage))

    def _labels(self, storage: Storage) -> Labels | FolderNames:
        names = read_class_names(self.class_names, storage) if self.class_names else {}
        return Labels(self.template, names)


@dataclass(frozen=True)
class ClassZipFormat(LabelledFormat):
    """A ZIP file of CLASS/IMAGE.jpg as a labelled set: rows tell the folders of images apart."""

    template: str = "{}"

    name: ClassVar[str] = "zip"
    row: ClassVar[np.dtype] = np.dtype(
        [("offset", "<u8"), ("packed", "<u4"), ("size", "<u4"), ("caption", "<u8")]
    )

    def identity(self) -> dict[str, Any]:
        """No option decides what the rows are."""
        return {}

    def _labels(self, storage: Storage) -> FolderNames:
        del storage
        return FolderNames()


class _OpenZip:
    """Reads members by the place of their header."""

    def __init__(self, file: File, labels: Labels | FolderNames) -> None:
        self._file, self._labels = file, labels

    def image(self, row: np.void) -> bytes:
        offset, packed, size, _ = row.item()
        return read_member(self._file, offset, packed, size)

    def captions(self, row: np.void) -> list[list[str]]:
        offset, *_, checksum = row.item()
        return self._labels.checked_caption(_folder(zip_name(self._file, offset)), checksum)

    def key(self, row: np.void) -> str:
        offset, *_ = row.item()
        try:
            return zip_name(self._file, offset)
        except ReadError:
            return f"byte {offset}"


def _folder(name: str) -> str:
    return posixpath.basename(posixpath.dirname(name))
