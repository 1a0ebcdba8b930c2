"""ArrayRecord files of msgpack maps, as `prepare` writes them, or of `tf.train.Example` protos."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from array_record.python.array_record_module import ArrayRecordReader

from nlip_jax.data.failures import ReadError
from nlip_jax.data.formats.base import Scan
from nlip_jax.data.formats.collect import Collector
from nlip_jax.data.formats.records import CAPTIONS, IMAGE, KEY, Record, decode_record
from nlip_jax.data.formats.texts import check_caption_keys
from nlip_jax.data.storage import Storage
from nlip_jax.errors import UsageError

# Without readahead a read touches one record only; the library's default is for whole files.
_OPTIONS = "readahead_buffer_size:0,max_parallelism:0"
_BUFFER = 1 << 15  # bytes, for every open file
_READ_AT_ONCE = 32  # records
_MAX_GROUP = 32  # records are compressed in groups, and a read takes its whole group apart


@dataclass(frozen=True)
class ArrayRecordFormat:
    """A file of records; each is an image file with its captions.

    Attributes:
      image_key: name of the field with the image file.
      caption_keys: names of fields with captions; each stands in for those before it. A text
        in a sequence of a TFDS data set has a name like "captions/text".
      sample_key: name of the field with the name of the sample, for messages; it may be missing.
    """

    image_key: str = IMAGE
    caption_keys: tuple[str, ...] = (CAPTIONS, "caption")
    sample_key: str = KEY

    name: ClassVar[str] = "array_record"
    extensions: ClassVar[tuple[str, ...]] = ("array_record", "arrayrecord")
    row: ClassVar[np.dtype] = np.dtype([("record", "<u8")])

    def __post_init__(self) -> None:
        check_caption_keys(self.caption_keys)

    @property
    def num_caption_keys(self) -> int:
        """Number of caption keys."""
        return len(self.caption_keys)

    def identity(self) -> dict[str, Any]:
        """The options that decide what the rows are."""
        return {
            "image_key": self.image_key,
            "caption_keys": list(self.caption_keys),
            "sample_key": self.sample_key,
        }

    def scan(self, path: str, storage: Storage) -> Scan:
        """Reads every record; one that cannot be read or understood is counted."""
        status = storage.status(path)
        reader = _open(path, storage)
        _check_group(path, reader)
        collector = Collector(self.row)
        for number, data in enumerate(_all_records(reader)):
            try:
                record = self.record(data)
            except ValueError as error:
                if number == 0:
                    raise UsageError(f"the first record of {path} is {error}") from error
                collector.leave_out("unreadable_caption", f"record {number}: {error}")
                continue
            if number == 0:
                self._check_fields(path, record)
            key = record.key or f"record {number}"
            if record.image:
                collector.add((number,), key=key, texts=record.texts)
            else:
                collector.leave_out("unusable_image", f"{key}: no image")
        return collector.scan(status)

    def open(self, path: str, storage: Storage) -> "_OpenRecords":
        """Opens a file that was scanned."""
        return _OpenRecords(self, _open(path, storage))

    def record(self, data: bytes) -> Record:
        """Reads a record by the names of its fields; raises ValueError if it is none."""
        return Record.of(
            decode_record(data),
            image=self.image_key,
            captions=self.caption_keys,
            key=self.sample_key,
        )

    def _check_fields(self, path: str, record: Record) -> None:
        names = set(record.fields)
        if self.image_key not in names or names.isdisjoint(self.caption_keys):
            raise UsageError(
                f"{path}: keys {self.image_key!r} (image) and "
                f"{' or '.join(map(repr, self.caption_keys))} (captions) are asked for, its "
                f"first record has {', '.join(map(repr, sorted(names)))}"
            )


class _OpenRecords:
    """Reads records at random; the reader takes care of threads."""

    def __init__(self, layout: ArrayRecordFormat, reader: ArrayRecordReader) -> None:
        self._layout, self._reader = layout, reader

    def image(self, row: np.void) -> bytes:
        image = self._record(row).image
        if not image:
            raise ReadError("empty_image", f"no image in field {self._layout.image_key!r}")
        return image

    def captions(self, row: np.void) -> list[list[str]]:
        texts = self._record(row).texts
        if texts.problem:
            raise ReadError("unreadable_caption", texts.complaint)
        return texts.by_key

    def key(self, row: np.void) -> str:
        try:
            key = self._record(row).key
        except ReadError:
            key = ""
        return key or f"record {row['record']}"

    def _record(self, row: np.void) -> Record:
        try:
            (data,) = self._reader.read([int(row["record"])])
        except RuntimeError as error:
            raise ReadError("shard_unreadable", f"the record cannot be read ({error})") from error
        try:
            return self._layout.record(data)
        except ValueError as error:
            raise ReadError("unreadable_caption", f"the record is {error}") from error


def _open(path: str, storage: Storage) -> ArrayRecordReader:
    """Opens a file; the library itself speaks of what is wrong only when it is read."""
    reader = ArrayRecordReader(storage.local_path(path), _OPTIONS, file_reader_buffer_size=_BUFFER)
    if not reader.ok():
        try:
            reader.close()
        except RuntimeError as error:
            raise OSError(f"{path} is no whole ArrayRecord file: {error}") from error
    return reader


def _check_group(path: str, reader: ArrayRecordReader) -> None:
    """Refuses files of large groups; older releases of the library wrote 65536 in one."""
    group = re.search(r"group_size:(\d+)", reader.writer_options_string())
    if group and int(group[1]) > _MAX_GROUP:
        raise UsageError(
            f"{path} has its records in groups of {group[1]}, and reading one would read its whole "
            f"group: write it again with ArrayRecordWriter(path, 'group_size:1')"
        )


def _all_records(reader: ArrayRecordReader) -> Iterator[bytes]:
    """Every record in turn; empty bytes for one that is damaged."""
    count = reader.num_records()
    for start in range(0, count, _READ_AT_ONCE):
        numbers = list(range(start, min(start + _READ_AT_ONCE, count)))
        try:
            yield from reader.read(numbers)
        except RuntimeError:
            yield from (_read_or_nothing(reader, number) for number in numbers)


def _read_or_nothing(reader: ArrayRecordReader, number: int) -> bytes:
    try:
        return reader.read([number])[0]
    except RuntimeError:
        return b""
