"""What is searched: images of a folder, of the training data, or of an evaluation set."""

import dataclasses
import glob
import os
import posixpath
from pathlib import Path
from typing import Any

import numpy as np
from ml_collections import ConfigDict

from nlip_jax import build
from nlip_jax.build.sources import make_storage
from nlip_jax.commands.searching.request import DATA, Request
from nlip_jax.data.failures import ReadError
from nlip_jax.data.formats.reading import is_image_name
from nlip_jax.data.labelled import LabelledSet
from nlip_jax.data.source import Source, image_ids
from nlip_jax.data.sources.image_files import ImageFiles
from nlip_jax.data.storage import Storage, is_remote
from nlip_jax.errors import UsageError
from nlip_jax.evaluators.base import Evaluator

_IMAGES = ("labelled", "test", "source")  # fields of evaluators that have images


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Place:
    """Images that are searched.

    Attributes:
      name: for people.
      source: the images.
      labelled: what they show, where they have classes instead of captions.
      root: folder that their names are told from; empty: they are told whole.
    """

    name: str
    source: Source
    labelled: LabelledSet | None = None
    root: str = ""

    def file_of(self, image_id: int) -> str:
        """Where an image lies, in words."""
        found = self.source.place(image_id)
        if self.root:
            return posixpath.relpath(found.key, self.root)
        return f"{found.key} in {found.shard}"

    def captions_of(self, ids: list[int]) -> list[str]:
        """The first caption of each image, or its class; empty where it has none."""
        if self.labelled is not None:
            return [self.labelled.class_names[self.labelled.labels[i]] for i in ids]
        owners = image_ids(self.source, np.arange(len(self.source)))
        return [self._caption(np.flatnonzero(owners == i)[:1].tolist()) for i in ids]

    def _caption(self, examples: list[int]) -> str:
        try:
            return self.source.caption(examples[0]) if examples else ""
        except ReadError:
            return ""


def config_searched(request: Request) -> ConfigDict:
    """The config whose sets can be searched: that of the run, or the other that was named."""
    return request.config if request.other is None else request.other


def is_set(request: Request) -> bool:
    """Whether --over names an evaluation set; any other name is that of a folder."""
    kind, _, name = request.over.partition("/")
    return name in config_searched(request).evaluators.get(kind, {})


def place_of_set(name: str, evaluator: Evaluator) -> Place:
    """The images of an evaluation set.

    Args:
      name: KIND/SET.
      evaluator: of it.

    Raises:
      UsageError: this kind has no images.
    """
    found: Any = next((v for f in _IMAGES if (v := getattr(evaluator, f, None)) is not None), None)
    if isinstance(found, LabelledSet):
        return Place(name=name, source=found.source, labelled=found)
    if found is None or not found.num_images:
        raise UsageError(f"--over={name}: a set of this kind has no images to search")
    return Place(name=name, source=found)


def open_place(request: Request) -> Place:
    """The images of a folder, or the training data.

    Raises:
      UsageError: no such folder, or no images in it.
    """
    if request.over != DATA:
        others = ", and no such set in config.evaluators; name one of them"
        storage = make_storage(config_searched(request))
        return place_of_folder(request.over, storage, others=others)
    if request.other is None:
        source = build.open_training_source(request.config, request.run)
        return Place(name=f"the training data of {request.run.name}", source=source)
    # An index goes beside the features: the folder of the run has one of its own data.
    folder = request.cache / Path(request.other_name.split(":", 1)[0]).stem
    source = build.open_training_source(request.other, folder)
    return Place(name=f"the data of {request.other_name}", source=source)


def place_of_folder(folder: str, storage: Storage, *, others: str = "; name one") -> Place:
    """The images of a folder and of those below it.

    Args:
      folder: local or remote, as --over has it.
      storage: how it is reached.
      others: what a message says where there is no such folder.

    Raises:
      UsageError: there is none, or it has no images.
    """
    folder = folder if is_remote(folder) else str(Path(folder).expanduser())
    if not is_remote(folder) and not os.path.isdir(folder):
        raise UsageError(
            f"--over={folder}: there is no such folder{others}, or {DATA!r} for the training data"
        )
    root = folder.rstrip("/") or "/"
    found = storage.glob(posixpath.join(glob.escape(root), "**", "*"))
    paths = [path for path in found if is_image_name(path)]
    if not paths:
        raise UsageError(f"--over={folder}: there are no images in this folder or below it")
    source = ImageFiles(paths, storage=storage, named_in=folder)
    return Place(name=folder, source=source, root=root)
