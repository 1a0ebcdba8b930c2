"""Files that ask which caption belongs to which image: Winoground, SugarCrepe, and their like."""

import posixpath
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from nlip_jax.data.formats.captions import clean
from nlip_jax.data.formats.json_text import load_json
from nlip_jax.data.formats.reading import resolve
from nlip_jax.data.sources.image_files import ImageFiles
from nlip_jax.data.storage import Storage
from nlip_jax.errors import UsageError

_KNOWN = (
    "image_0, image_1, caption_0, caption_1 (Winoground); filename, caption, negative_caption "
    "(SugarCrepe); or images, captions, right"
)


@dataclass(frozen=True)
class Choice:
    """Some images and captions, and which belong together.

    Attributes:
      images: numbers of the images.
      captions: numbers of the captions.
      right: (place among the images, place among the captions) of all that belong together; no
        image and no caption is in two.
      file: it stands in, without folder and extension.
      tag: kind of the record; empty for none.
    """

    images: tuple[int, ...]
    captions: tuple[int, ...]
    right: tuple[tuple[int, int], ...]
    file: str
    tag: str


@dataclass(frozen=True, eq=False)
class Choices:
    """The records of some files.

    Attributes:
      source: images and captions, each once; the captions belong to no image.
      captions: they.
      records: in the order of the files.
    """

    source: ImageFiles
    captions: tuple[str, ...]
    records: tuple[Choice, ...]


def read_choices(
    paths: Sequence[str], *, root: str, extension: str, storage: Storage
) -> Choices:
    """Reads records, of JSON (a list, or a mapping to them) or JSON lines.

    A record has one of these layouts:

    - Winoground: image_0, image_1, ... and caption_0, caption_1, ...; those of a number belong
      together
    - SugarCrepe: filename, caption, negative_caption; a list of negative captions will do, too
    - images, captions and right: for one image the place of its caption, for one caption the place
      of its image, otherwise for every image in turn the place of its caption; from 0

    and may have a tag.

    Args:
      paths: of the files.
      root: folder of the images; empty: that of each file.
      extension: of the images' names, where the records leave it out: "png".
      storage: how files are reached.

    Raises:
      UsageError: a file cannot be read or has no such records, or an image is not there.
    """
    images: dict[str, int] = {}
    captions: dict[str, int] = {}
    records = []
    for path in paths:
        file = posixpath.splitext(posixpath.basename(path))[0]
        for number, record in enumerate(_records(path, storage)):
            try:
                names, texts, right = _read(record)
            except ValueError as error:
                raise UsageError(f"{path}: record {number} {error}") from error
            names = [f"{name}.{extension}" if extension else name for name in names]
            named = [resolve(name, shard=path, root=root) for name in names]
            records.append(
                Choice(
                    images=tuple(images.setdefault(name, len(images)) for name in named),
                    captions=tuple(captions.setdefault(text, len(captions)) for text in texts),
                    right=right,
                    file=file,
                    tag=str(record.get("tag") or ""),
                )
            )
    if not records:
        raise UsageError(f"{', '.join(paths)}: no records")
    source = ImageFiles(list(images), storage=storage, named_in=" and ".join(paths[:2]))
    return Choices(source, tuple(captions), tuple(records))


def _records(path: str, storage: Storage) -> list[Any]:
    try:
        file = storage.open(path)
        try:
            document = load_json(file.read(0, file.status.size).decode("utf-8-sig"))
        finally:
            file.close()
    except (OSError, ValueError) as error:
        raise UsageError(f"{path} cannot be read ({error})") from error
    if isinstance(document, dict) and not any(isinstance(v, dict) for v in document.values()):
        return [document]  # JSON lines, and only one
    return list(document.values()) if isinstance(document, dict) else list(document)


def _read(record: Any) -> tuple[list[str], list[str], tuple[tuple[int, int], ...]]:
    """Names of images, captions, and which belong together; raises ValueError."""
    if not isinstance(record, dict):
        raise ValueError(f"is no mapping but {type(record).__name__}; known are {_KNOWN}")
    if "image_0" in record and "caption_0" in record:
        images, captions = _numbered(record, "image_"), _numbered(record, "caption_")
        right: Any = list(range(len(images)))
        if len(captions) != len(images):
            raise ValueError(f"has {len(images)} images and {len(captions)} captions")
    elif {"filename", "caption", "negative_caption"} <= set(record):
        negative = record["negative_caption"]
        captions = [record["caption"], *(negative if isinstance(negative, list) else [negative])]
        images, right = [record["filename"]], 0
    elif {"images", "captions", "right"} <= set(record):
        images, captions, right = record["images"], record["captions"], record["right"]
    else:
        raise ValueError(f"has {', '.join(map(str, record))}; known are {_KNOWN}")
    for what, values in (("images", images), ("captions", captions)):
        if not (isinstance(values, list) and values and all(isinstance(v, str) for v in values)):
            raise ValueError(f"has {what} that are no list of texts: {values!r:.60}")
    texts = clean(captions)
    if len(texts) < len(captions):
        raise ValueError("has a blank caption")
    if len(images) == len(captions) == 1:
        raise ValueError("has one image and one caption: nothing to choose from")
    return images, texts, _pairs(right, num_images=len(images), num_captions=len(captions))


def _numbered(record: dict[str, Any], prefix: str) -> list[Any]:
    found = []
    while f"{prefix}{len(found)}" in record:
        found.append(record[f"{prefix}{len(found)}"])
    return found


def _pairs(right: Any, *, num_images: int, num_captions: int) -> tuple[tuple[int, int], ...]:
    if isinstance(right, int):
        if num_images > 1 and num_captions > 1:
            raise ValueError(f"has right={right}, and needs the caption of each image: a list")
        pairs = [(0, right)] if num_images == 1 else [(right, 0)]
    elif isinstance(right, list) and len(right) == num_images and num_captions > 1:
        pairs = list(enumerate(right))
    else:
        raise ValueError(f"has right={right!r} for {num_images} images, {num_captions} captions")
    places = [caption for _, caption in pairs]
    fits = all(
        isinstance(i, int) and isinstance(j, int) and 0 <= i < num_images and 0 <= j < num_captions
        for i, j in pairs
    )
    if not fits or len(set(places)) < len(places):
        raise ValueError(
            f"has right={right!r}: must be places from 0, each once, of {num_images} images and "
            f"{num_captions} captions"
        )
    return tuple(pairs)
