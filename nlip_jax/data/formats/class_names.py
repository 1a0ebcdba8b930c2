"""Captions of labelled images: a template filled with the name of the class, or its folder."""

import hashlib
import json
import zlib
from dataclasses import dataclass

from nlip_jax.data.failures import ReadError
from nlip_jax.data.formats.captions import clean
from nlip_jax.data.storage import Storage
from nlip_jax.errors import UsageError

_SLOT = "{}"


@dataclass(frozen=True)
class Labels:
    """The captions of classes.

    Attributes:
      template: text with {} for the name of the class.
      names: of classes, by folder; a folder without one is its own name, with spaces for _.
    """

    template: str
    names: dict[str, str]

    def checksum(self, caption: str) -> int:
        """32 bits by which rows know their caption."""
        return caption_checksum(caption)

    def caption(self, folder: str) -> str:
        """The caption of the images in a folder."""
        name = self.names.get(folder, folder.replace("_", " "))
        return "".join(clean([self.template.replace(_SLOT, name)]))

    def checked_caption(self, folder: str, checksum: int) -> list[list[str]]:
        """The caption, which must be the one that was indexed.

        Raises:
          ReadError: it is another, because names of classes changed.
        """
        caption = self.caption(folder)
        if caption_checksum(caption) != checksum:
            raise ReadError("unreadable_caption", f"{caption!r} is not what was indexed")
        return [[caption]]


@dataclass(frozen=True)
class FolderNames:
    """Folders as their own captions: for sets whose classes are named when they are opened."""

    def checksum(self, caption: str) -> int:
        """64 bits that tell all folders of a set apart."""
        digest = hashlib.blake2b(caption.encode("utf-8", "replace"), digest_size=8).digest()
        return int.from_bytes(digest, "little")

    def caption(self, folder: str) -> str:
        """The folder, as captions are cleaned."""
        return "".join(clean([folder]))

    def checked_caption(self, folder: str, checksum: int) -> list[list[str]]:
        """The folder, which must be the one that was indexed.

        Raises:
          ReadError: it is another.
        """
        caption = self.caption(folder)
        if self.checksum(caption) != checksum:
            raise ReadError("unreadable_caption", f"{caption!r} is not what was indexed")
        return [[caption]]


def caption_checksum(caption: str) -> int:
    """32 bits by which rows know their caption: it does not lie in the shard."""
    return zlib.crc32(caption.encode("utf-8", "replace"))


def check_template(template: str) -> None:
    """Refuses a template without a place for the name; raises UsageError."""
    if _SLOT not in template:
        raise UsageError(f"template={template!r}: needs {_SLOT} where the name of the class goes")


def read_class_names(path: str, storage: Storage) -> dict[str, str]:
    """Reads a JSON object with parallel lists "folders" and "classnames".

    Args:
      path: of the file.
      storage: how it is reached.

    Returns:
      Names by folder.

    Raises:
      UsageError: it is no such file.
      OSError: it cannot be read.
    """
    file = storage.open(path)
    try:
        document = json.loads(file.read(0, file.status.size))
        folders, names = document["folders"], document["classnames"]
        if not all(isinstance(text, str) for text in [*folders, *names]):
            raise ValueError("names must be texts")
        return dict(zip(folders, names, strict=True))
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise UsageError(
            f'{path}: class names are {{"folders": [...], "classnames": [...]}}, two lists of the '
            f"same length ({error})"
        ) from error
    finally:
        file.close()
