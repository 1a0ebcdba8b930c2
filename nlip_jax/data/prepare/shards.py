"""Writing one shard: the images of one part of a data set that the rules keep."""

import hashlib
import os
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from array_record.python.array_record_module import ArrayRecordReader, ArrayRecordWriter

from nlip_jax import phases
from nlip_jax.data.failures import ReadError
from nlip_jax.data.formats.records import encode_record
from nlip_jax.data.prepare.images import (
    examples_by_image,
    image_file,
    picture_size,
    read_captions,
    shrunk_file,
    spans,
)
from nlip_jax.data.prepare.plan import Folder
from nlip_jax.data.prepare.rules import RULES, Facts, Limits, Screen
from nlip_jax.data.source import Source
from nlip_jax.errors import RunError

# One record a group, so that a read touches it alone; images do not get smaller by compression.
_OPTIONS = "group_size:1,uncompressed,max_parallelism:1"
_ADVANCE = 16  # images between two words on the progress


@dataclass(frozen=True)
class WriteShard:
    """Writes one shard; a task of the second pass.

    Attributes:
      source: the data set.
      folder: where the shards go, and the plan.
      tables: files with what rules look up, by rule.
    """

    source: Source
    folder: Folder
    tables: Mapping[str, Path]

    def __call__(self, number: int, advance: Callable[[int], None]) -> dict[str, Any]:
        """Writes the shard of that number.

        Returns:
          Its report: name, bytes and checksum, and what became of its images and captions. Of
          both, "seen" is the sum of all the others.

        Raises:
          RunError: it cannot be written.
        """
        plan = self.folder.plan
        screen = Screen(
            plan.rules, {rule: np.load(path, mmap_mode="r") for rule, path in self.tables.items()}
        )
        span = spans(plan.num_images, plan.num_shards)[number]
        images, captions = Counter(), Counter()
        target = self.folder.shard(number)
        temporary = self.folder.progress / f"{target.name}.tmp"
        done = span.start
        with _Writer(temporary) as writer:
            for image_id, ids in examples_by_image(self.source, span):
                texts = read_captions(self.source, ids, captions)
                file = self._image(image_id, len(texts), screen, images)
                if file is None:
                    captions["of dropped images"] += len(texts)
                elif kept := _screen_texts(texts, screen, captions):
                    writer.write(encode_record(file, kept, self.source.place(image_id).key))
                    images["kept"] += 1
                    captions["kept"] += len(kept)
                else:
                    images["without a caption"] += 1
                if image_id - done >= _ADVANCE:
                    advance(image_id - done)
                    done = image_id
        size, checksum = _settle(temporary, num_records=images["kept"])
        phases.enter("prepare_written", number=number)
        temporary.rename(target)
        advance(span.stop - done)
        return {
            "file": target.name,
            "bytes": size,
            "blake2b": checksum,
            "images": account(images, plan.rules, of_images=True),
            "captions": account(captions, plan.rules, of_images=False),
        }

    def _image(
        self, image_id: int, num_texts: int, screen: Screen, counts: Counter
    ) -> bytes | None:
        """The file to write for an image; None where it is left out, which is counted."""
        plan = self.folder.plan
        try:
            picture = self.source.picture(image_id)
            size = picture_size(picture, max_pixels=plan.max_pixels)
            rule = screen.image(Facts(*size, num_texts))
            if rule is None:
                shrink = plan.max_side and max(size) > plan.max_side
                return shrunk_file(picture, plan.max_side) if shrink else image_file(picture)
        except ReadError as error:
            rule = f"unreadable {error.kind}"
        counts[rule] += 1
        return None


def account(counts: Counter, rules: Limits, *, of_images: bool) -> dict[str, int]:
    """Counts in a fixed order: seen, kept, what each rule dropped, what else was left out."""
    names = [name for name in rules if RULES[name].of_images == of_images]
    others = sorted(counts.keys() - {"kept", *names})
    listed = {name: counts[name] for name in ("kept", *names, *others)}
    return {"seen": sum(listed.values()), **listed}


def _screen_texts(texts: list[str], screen: Screen, counts: Counter) -> list[str]:
    """The texts that the rules keep; those dropped are counted."""
    kept = []
    for text in texts:
        rule = screen.text(text)
        if rule is None:
            kept.append(text)
        else:
            counts[rule] += 1
    return kept


class _Writer:
    """An ArrayRecord file that is only whole once it was left without an error."""

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            self._writer = ArrayRecordWriter(str(path), _OPTIONS)
        except RuntimeError as error:
            raise _cannot_write(path, error) from error

    def write(self, record: bytes) -> None:
        try:
            self._writer.write(record)
        except RuntimeError as error:
            raise _cannot_write(self.path, error) from error

    def __enter__(self) -> "_Writer":
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, _: object) -> None:
        try:
            self._writer.close()
        except RuntimeError as failure:
            if error is None:
                raise _cannot_write(self.path, failure) from failure


def _settle(path: Path, *, num_records: int) -> tuple[int, str]:
    """Makes sure that a file is on disk and whole; returns bytes and checksum."""
    with open(path, "rb") as file:
        os.fsync(file.fileno())
        checksum = hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=16)).hexdigest()
        size = file.tell()
    reader = ArrayRecordReader(str(path))
    found = reader.num_records() if reader.ok() else -1
    if found != num_records:
        raise RunError(f"{path} has {found} records, {num_records} were written: is the disk full?")
    reader.close()
    return size, checksum


def _cannot_write(path: Path, error: Exception) -> RunError:
    return RunError(f"{path} cannot be written: {error}; run the same command again to go on")
