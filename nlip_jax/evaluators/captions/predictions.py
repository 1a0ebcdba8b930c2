"""Captions from a file, in COCO's results format: `[{"image_id": ..., "caption": ...}]`."""

import json
import posixpath
import re
from collections.abc import Sequence
from typing import Any

from nlip_jax.data.storage import Storage
from nlip_jax.errors import UsageError

# What a number as image_id means: the number that the image's file name ends in, as COCO's names
# do, or the image's place in its set, from 0.
NUMBERS = ("file_name", "place")
_DIGITS = re.compile(r"\d+$")


def read_predictions(path: str, *, storage: Storage) -> dict[str | int, str]:
    """Reads a file of results.

    Returns:
      Caption by image_id, which is a number or a name.

    Raises:
      UsageError: it cannot be read, is in another layout, or has two captions for an image.
    """
    try:
        file = storage.open(path)
        try:
            records = json.loads(file.read(0, file.status.size).decode("utf-8-sig"))
        finally:
            file.close()
    except (OSError, ValueError) as error:
        raise UsageError(f"predictions file {path} cannot be read: {error}") from error
    if not isinstance(records, list):
        raise UsageError(f'predictions file {path}: must be [{{"image_id": .., "caption": ..}}]')
    found: dict[str | int, str] = {}
    for number, record in enumerate(records):
        image_id, caption = _parts(record)
        if image_id is None or caption is None:
            raise UsageError(
                f"predictions file {path}: record {number} must have image_id, a number or a name, "
                f"and caption, a text: {json.dumps(record)[:80]}"
            )
        if image_id in found:
            raise UsageError(
                f"predictions file {path}: two captions for image_id={image_id!r}; one is measured"
            )
        found[image_id] = caption
    return found


def match_predictions(
    predictions: dict[str | int, str], keys: Sequence[str], *, path: str, numbers: str
) -> list[str]:
    """The caption of every image.

    Args:
      predictions: by image_id: the image's key, its file name, that without its extension, or a
        number.
      keys: of the images, such as their paths.
      path: of the file, for messages.
      numbers: one of `NUMBERS`.

    Raises:
      UsageError: an image_id names no image or several, or an image has no caption or two.
    """
    places = _places(keys, numbers=numbers)
    captions: dict[int, tuple[str | int, str]] = {}
    for image_id, caption in predictions.items():
        images = places.get(image_id, [])
        if len(images) != 1:
            what = f"names {len(images)} images" if images else "names no image"
            raise UsageError(
                f"predictions file {path}: image_id={image_id!r} {what} of this set of {len(keys)}"
                f", whose first is {keys[0]!r}"
            )
        before = captions.setdefault(images[0], (image_id, caption))
        if before[0] is not image_id and before[0] != image_id:
            raise UsageError(
                f"predictions file {path}: image_id={before[0]!r} and {image_id!r} are the same "
                f"image {keys[images[0]]!r}; one caption is measured"
            )
    missing = [key for i, key in enumerate(keys) if i not in captions]
    if missing:
        raise UsageError(
            f"predictions file {path}: {len(missing)} of {len(keys)} images have no caption, such "
            f"as {missing[0]!r}"
        )
    return [captions[i][1] for i in range(len(keys))]


def _parts(record: Any) -> tuple[str | int | None, str | None]:
    """image_id and caption; None for one that is missing or of a wrong type."""
    if not isinstance(record, dict):
        return None, None
    image_id, caption = record.get("image_id"), record.get("caption")
    is_id = isinstance(image_id, int | str) and not isinstance(image_id, bool)
    return (image_id if is_id else None), (caption if isinstance(caption, str) else None)


def _places(keys: Sequence[str], *, numbers: str) -> dict[str | int, list[int]]:
    """The images that each name may mean."""
    places: dict[str | int, list[int]] = {}
    whole = {key: i for i, key in enumerate(keys)}
    for i, key in enumerate(keys):
        name = posixpath.basename(key)
        stem = posixpath.splitext(name)[0]
        digits = _DIGITS.search(stem)
        ids = {name, stem} - whole.keys()
        if numbers == "place":
            ids.add(i)
        elif digits:
            ids.add(int(digits[0]))
        for one in ids:
            places.setdefault(one, []).append(i)
    # A key in full means its own image, whatever else has that name.
    return places | {key: [i] for key, i in whole.items()}
