"""The files of labelled sets that are read through an index."""

import os
import posixpath
from collections.abc import Callable

from ml_collections import ConfigDict

from nlip_jax.data.formats.base import Format
from nlip_jax.data.formats.class_folder import ClassFolderFormat
from nlip_jax.data.formats.class_tar import ClassTarFormat
from nlip_jax.data.formats.labelled import ClassZipFormat
from nlip_jax.data.formats.reading import read_text_file
from nlip_jax.data.index.shards import expand_shards
from nlip_jax.data.storage import Storage
from nlip_jax.data.storage.remote import is_remote
from nlip_jax.errors import UsageError

_SHARD_COUNT = "nshards.txt"


def _zip(block: ConfigDict, storage: Storage) -> tuple[list[str], Format]:
    if not block.path:
        raise UsageError("path is empty: name a ZIP file of CLASS/IMAGE.jpg")
    format = ClassZipFormat()
    patterns = block.path.split("::")
    return expand_shards(patterns, storage=storage, extensions=format.extensions), format


def _image_folder(block: ConfigDict, storage: Storage) -> tuple[list[str], Format]:
    del storage
    root = _root(block, "a folder that holds a folder of images for every class")
    if is_remote(root):
        raise UsageError(
            f"root={root!r}: folders of images are read from local disks; pack them as a ZIP file "
            "or as tars, which are read from anywhere"
        )
    root = os.path.expanduser(root)
    if not os.path.isdir(root):
        raise UsageError(f"root={root!r} is no folder: check the path")
    with os.scandir(root) as entries:
        folders = sorted(e.path for e in entries if e.is_dir() and not e.name.startswith("."))
    if not folders:
        raise UsageError(f"root={root!r} holds no folders: one for each class is needed")
    return folders, ClassFolderFormat()


def _webdataset(block: ConfigDict, storage: Storage) -> tuple[list[str], Format]:
    root = _root(block, f"a folder with classnames.txt and SPLIT/{_SHARD_COUNT}")
    folder = posixpath.join(os.path.expanduser(root), block.split)
    counted = posixpath.join(folder, _SHARD_COUNT)
    text = read_text_file(counted, storage).strip()
    if not text.isdigit() or not int(text):
        raise UsageError(f"{counted} holds {text[:20]!r}: the number of tars is needed")
    shards = [posixpath.join(folder, f"{number}.tar") for number in range(int(text))]
    missing = [
        shard
        for shard, status in zip(shards, storage.statuses(shards), strict=True)
        if status is None
    ]
    if missing:
        raise UsageError(
            f"{len(missing)} of the {len(shards)} tars that {counted} tells of are not there, such "
            f"as {missing[0]}: fetch them"
        )
    return shards, ClassTarFormat()


# By `source`: the block of a set -> its files, and how they are read.
CLASS_SHARDS: dict[str, Callable[[ConfigDict, Storage], tuple[list[str], Format]]] = {
    "zip": _zip,
    "image_folder": _image_folder,
    "webdataset": _webdataset,
}


def _root(block: ConfigDict, what: str) -> str:
    if not block.root:
        raise UsageError(f"root is empty: name {what}")
    return block.root
