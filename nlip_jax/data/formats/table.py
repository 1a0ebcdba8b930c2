"""Tables of image path and caption: CSV and TSV, as open_clip reads them."""

import io
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from nlip_jax.data.failures import ReadError
from nlip_jax.data.formats.base import Scan
from nlip_jax.data.formats.collect import Collector
from nlip_jax.data.formats.csv_records import CsvRecords
from nlip_jax.data.formats.reading import open_stream, read_image_file, read_part, resolve
from nlip_jax.data.formats.texts import Texts, check_caption_keys, read_texts
from nlip_jax.data.storage import File, Storage
from nlip_jax.errors import UsageError

_MAX_RUN = 1 << 26  # bytes of consecutive records of one image


@dataclass(frozen=True)
class TableFormat:
    """A text file with a header, a record for every caption, and in it the path of its image.

    Consecutive records with one path are one image with several captions. Fields may be quoted
    with `"`, and quoted ones may hold separators and line breaks. Whether an image exists is found
    when it is read. Paths may be absolute, remote, or lead out of `root`.

    Attributes:
      image_column: name of the column of paths.
      caption_columns: names of columns of captions; each stands in for those before it.
      separator: one character.
      root: folder that relative paths start from; empty takes the folder of the table.
    """

    image_column: str = "filepath"
    caption_columns: tuple[str, ...] = ("title",)
    separator: str = "\t"
    root: str = ""

    name: ClassVar[str] = "table"
    extensions: ClassVar[tuple[str, ...]] = ("csv", "tsv")
    row: ClassVar[np.dtype] = np.dtype([("offset", "<u8"), ("length", "<u4")])

    def __post_init__(self) -> None:
        check_caption_keys(self.caption_columns)
        if len(self.separator) != 1 or self.separator in '"\r\n':
            raise UsageError(
                f"separator={self.separator!r}: must be one character, such as ',' or a tab "
                "($'\\t' in a shell)"
            )

    @property
    def num_caption_keys(self) -> int:
        """Number of caption columns."""
        return len(self.caption_columns)

    def identity(self) -> dict[str, Any]:
        """The options that decide what the rows are."""
        return {
            "image_column": self.image_column,
            "caption_columns": list(self.caption_columns),
            "separator": self.separator,
        }

    def scan(self, path: str, storage: Storage) -> Scan:
        """Finds the records of every image."""
        file = storage.open(path)
        try:
            records = CsvRecords(open_stream(file), self.separator)
            columns = self._read_header(path, records)
            collector = Collector(self.row)
            for run in _runs(records, columns, collector):
                row = (run.offset, run.stop - run.offset)
                collector.add(row, key=run.path, texts=columns.texts(run.records))
            return collector.scan(file.status)
        finally:
            file.close()

    def open(self, path: str, storage: Storage) -> "_OpenTable":
        """Opens a table that was scanned."""
        file = storage.open(path)
        columns = self._read_header(path, CsvRecords(open_stream(file), self.separator))
        return _OpenTable(self, file, columns, storage)

    def _read_header(self, path: str, records: CsvRecords) -> "_Columns":
        record = next(records, None)
        if record is None:
            raise UsageError(f"table {path} is empty: its first line must name the columns")
        if record.problem:
            raise UsageError(f"table {path}: its first line names no columns: {record.problem}")
        header = record.cells
        for name in (self.image_column, *self.caption_columns):
            if name not in header:
                raise UsageError(
                    f"table {path} has no column {name!r}; with separator {self.separator!r} it "
                    f"has {', '.join(map(repr, header))}"
                )
        records.width = len(header)
        return _Columns(
            width=len(header),
            image=header.index(self.image_column),
            captions={name: header.index(name) for name in self.caption_columns},
        )


@dataclass(frozen=True)
class _Columns:
    """Where in a record of `width` fields the path and the captions are."""

    width: int
    image: int
    captions: dict[str, int]

    def path(self, record: list[str]) -> str:
        return record[self.image].strip()

    def texts(self, records: list[list[str]]) -> Texts:
        places = self.captions.items()
        return read_texts({name: [record[place] for record in records] for name, place in places})


@dataclass
class _Run:
    """Consecutive records with one path, from byte `offset` to `stop`."""

    offset: int
    stop: int
    path: str
    records: list[list[str]]


def _runs(records: CsvRecords, columns: _Columns, collector: Collector) -> Iterator[_Run]:
    """The images of a table; records of no use are counted."""
    run = None
    for record in records:
        path = "" if record.problem else columns.path(record.cells)
        if run and path == run.path and record.stop - run.offset < _MAX_RUN:
            run.records.append(record.cells)
            run.stop = record.stop
            continue
        if run:
            yield run
        run = _Run(record.offset, record.stop, path, [record.cells]) if path else None
        if record.problem:
            collector.leave_out("unreadable_caption", f"byte {record.offset}: {record.problem}")
        elif not path:
            collector.leave_out("without_image", f"byte {record.offset}: no path")
    if run:
        yield run


class _OpenTable:
    """Reads the records of an image again."""

    def __init__(self, table: TableFormat, file: File, columns: _Columns, storage: Storage) -> None:
        self._table, self._file, self._columns, self._storage = table, file, columns, storage

    def image(self, row: np.void) -> bytes:
        path = self._columns.path(self._records(row)[0])
        where = resolve(path, shard=self._file.path, root=self._table.root)
        return read_image_file(where, self._storage)

    def captions(self, row: np.void) -> list[list[str]]:
        texts = self._columns.texts(self._records(row))
        if texts.problem:
            raise ReadError("unreadable_caption", texts.complaint)
        return texts.by_key

    def key(self, row: np.void) -> str:
        try:
            return self._columns.path(self._records(row)[0])
        except ReadError:
            return f"byte {row['offset']}"

    def _records(self, row: np.void) -> list[list[str]]:
        data = read_part(self._file, int(row["offset"]), int(row["length"]))
        records = CsvRecords(io.BytesIO(data), self._table.separator, width=self._columns.width)
        found = list(records)
        for record in found:
            if record.problem:
                raise ReadError("unreadable_caption", f"not as it was indexed: {record.problem}")
        if not found:
            raise ReadError("unreadable_caption", "not as it was indexed: blank")
        return [record.cells for record in found]
