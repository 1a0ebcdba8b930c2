"""Labelled sets of a config: images with one class each, and how prompts name the classes."""

import dataclasses
import posixpath
from collections.abc import Callable
from pathlib import Path

import numpy as np
from ml_collections import ConfigDict

from nlip_jax.build.blocks import take_class_block
from nlip_jax.build.evaluation.opening import Opening
from nlip_jax.build.names import lookup
from nlip_jax.build.sources import index_folder, open_class_images
from nlip_jax.data.failures import ReadError
from nlip_jax.data.formats.reading import read_text_file
from nlip_jax.data.labelled import LabelledSet
from nlip_jax.data.source import Source
from nlip_jax.data.sources.indexed import IndexedSource
from nlip_jax.data.sources.tfds_labelled import TfdsLabelled
from nlip_jax.data.synthetic import ClassScenes
from nlip_jax.errors import UsageError
from nlip_jax.evaluators.prompts.entries import (
    METRICS,
    SLOT,
    Prompts,
    check_templates,
    parse_prompts,
    read_prompts,
)
from nlip_jax.evaluators.prompts.matching import MATCHES, Matching, OwnClass
from nlip_jax.sharding import on_leader

_NAMES_FILE = "classnames.json"


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Found:
    """A labelled set as it lies there.

    Attributes:
      source: the images.
      labels: `[num_images]` integers, index into `classes`.
      classes: folders, or names of labels.
      named: the class names that lie beside the images; None where none do.
      templates: that lie beside the images.
    """

    source: Source
    labels: np.ndarray
    classes: tuple[str, ...]
    named: Prompts | None = None
    templates: tuple[str, ...] = ()


def _class_scenes(block: ConfigDict, opening: Opening) -> Found:
    del opening
    scenes = ClassScenes(**block)
    return Found(
        source=scenes,
        labels=scenes.labels,
        classes=scenes.class_names,
        templates=scenes.templates,
    )


def _zip(block: ConfigDict, opening: Opening) -> Found:
    source = _open_images("zip", block, opening)
    _, first, labels = np.unique(
        source.index.rows["caption"], return_index=True, return_inverse=True
    )
    try:
        folders = [source.caption(int(image)) for image in first]
    except ReadError as error:
        raise UsageError(f"{block.path} cannot be read ({error})") from error
    order = np.argsort(np.array(folders), kind="stable")
    named = _names_beside(block, posixpath.dirname(block.path.split("::")[0]), opening)
    return Found(
        source=source,
        labels=np.argsort(order)[labels],
        classes=tuple(folders[i] for i in order),
        named=named,
        templates=named.templates if named else (),
    )


def _image_folder(block: ConfigDict, opening: Opening) -> Found:
    source = _open_images("image_folder", block, opening)
    folders = np.array([posixpath.basename(shard.path) for shard in source.index.shards])
    order = np.argsort(folders, kind="stable")
    places = np.repeat(np.argsort(order), np.diff(source.index.first_images))
    named = _names_beside(block, block.root, opening)
    return Found(
        source=source,
        labels=places,
        classes=tuple(folders[order].tolist()),
        named=named,
        templates=named.templates if named else (),
    )


def _webdataset(block: ConfigDict, opening: Opening) -> Found:
    root = str(Path(block.root).expanduser()) if "://" not in block.root else block.root
    source = _open_images("webdataset", block, opening)
    names = _lines(posixpath.join(root, "classnames.txt"), opening)
    templates = posixpath.join(root, "zeroshot_classification_templates.txt")
    has_templates = opening.storage.statuses([templates])[0] is not None
    return Found(
        source=source,
        labels=source.index.rows["label"].astype(np.int64),
        classes=names,
        templates=check_templates(_lines(templates, opening)) if has_templates else (),
    )


def _tfds(block: ConfigDict, opening: Opening) -> Found:
    if not block.name:
        raise UsageError("tfds.name is empty: name a prepared data set, such as 'cifar10'")
    kept, opened = index_folder(opening.workdir, opening.name), []
    # One process reads the labels, and the others find them on disk.
    on_leader(lambda: opened.append(TfdsLabelled(**block, kept=kept)))
    source = opened[0] if opened else TfdsLabelled(**block, kept=kept)
    count = int(source.labels.max(initial=-1)) + 1
    classes = source.names or tuple(str(number) for number in range(count))
    return Found(source=source, labels=source.labels, classes=classes)


LABELLED_SETS: dict[str, Callable[[ConfigDict, Opening], Found]] = {
    "class_scenes": _class_scenes,
    "zip": _zip,
    "image_folder": _image_folder,
    "webdataset": _webdataset,
    "tfds": _tfds,
}


def open_labelled(spec: ConfigDict, opening: Opening) -> LabelledSet:
    """Opens a labelled set.

    Args:
      spec: see `labelled_set` in configs/evaluators.py.
      opening: where it stands in the config.

    Raises:
      UsageError: it cannot be used; the message begins with its field.
    """
    make = lookup(spec.source, LABELLED_SETS, field=f"{opening.field}.source")
    match = lookup(spec.match, MATCHES, field=f"{opening.field}.match")
    block = take_class_block(spec, field=opening.field)
    try:
        chosen = read_prompts(spec.prompts) if spec.prompts else None
        found = make(block, opening)
        _check_labels(found)
        prompts = chosen or found.named
        matching = match(_own_classes(found), prompts) if prompts else _as_they_are(found)
        return LabelledSet(
            source=found.source,
            labels=matching.places[found.labels],
            class_names=matching.class_names,
            templates=_templates(spec.templates, prompts=chosen, own=found.templates),
            metric=prompts.metric if prompts else METRICS[0],
        )
    except UsageError as error:
        message = str(error)
        has_field = f"config.{opening.field}" in message
        raise UsageError(message if has_field else f"config.{opening.field}: {message}") from error


def _open_images(kind: str, block: ConfigDict, opening: Opening) -> IndexedSource:
    return open_class_images(
        ConfigDict({"source": kind, kind: block}),
        field=opening.field,
        workdir=opening.workdir,
        name=opening.name,
        storage=opening.storage,
    )


def _names_beside(block: ConfigDict, folder: str, opening: Opening) -> Prompts | None:
    """The file of class names that a block names, or that lies in a folder."""
    path = block.class_names
    if path == "none":
        return None
    if path == "auto":
        path = posixpath.join(folder, _NAMES_FILE)
        if "://" not in path:
            path = str(Path(path).expanduser())
        if opening.storage.statuses([path])[0] is None:
            return None
    return parse_prompts(read_text_file(path, opening.storage), path)


def _lines(path: str, opening: Opening) -> tuple[str, ...]:
    text = read_text_file(path, opening.storage).rstrip("\n")
    return tuple(line.strip() for line in text.split("\n"))


def _check_labels(found: Found) -> None:
    if not len(found.labels):
        raise UsageError("this set is empty: look at its files")
    low, high = int(found.labels.min()), int(found.labels.max())
    if low < 0 or high >= len(found.classes):
        image = int(np.argmax(found.labels)) if high >= len(found.classes) else 0
        place = found.source.place(image)
        raise UsageError(
            f"label {high if high >= len(found.classes) else low} of {place.key} in {place.shard} "
            f"is out of range: there are {len(found.classes)} class names"
        )


def _own_classes(found: Found) -> list[OwnClass]:
    counts = np.bincount(found.labels, minlength=len(found.classes)).tolist()
    names = {}
    if found.named:
        names = dict(zip(found.named.folders, found.named.class_names, strict=False))
    return [
        OwnClass(folder=folder, name=names.get(folder, folder), count=count)
        for folder, count in zip(found.classes, counts, strict=True)
    ]


def _as_they_are(found: Found) -> Matching:
    names = tuple(name.replace("_", " ") for name in found.classes)
    return Matching(names, np.arange(len(names), dtype=np.int32))


def _templates(
    choice: str | tuple[str, ...], *, prompts: Prompts | None, own: tuple[str, ...]
) -> tuple[str, ...]:
    """The templates that a spec asks for; none where it asks for what the set does not have."""
    if not isinstance(choice, str):
        return check_templates(tuple(choice))
    if choice == "own" or (choice == "auto" and not prompts):
        return own
    if choice in ("auto", "clip", "filip"):
        if not prompts:
            raise UsageError(f"templates={choice!r} are those of prompts: name them there")
        found = prompts.filip_templates if choice == "filip" else prompts.templates
        if not found and choice != "auto":
            raise UsageError(f"prompts={prompts.name!r} have no templates={choice!r}")
        return found
    if SLOT in choice or "{c}" in choice:
        return check_templates((choice,))
    raise UsageError(
        f"templates={choice!r}: choose one of auto, clip, filip, own, or write texts with {{}} "
        "where the name of the class goes"
    )
