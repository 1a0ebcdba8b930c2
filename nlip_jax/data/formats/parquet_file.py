"""What `ParquetFormat` does with a file; apart from it because importing pyarrow takes a while."""

import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from nlip_jax.data.failures import ReadError
from nlip_jax.data.formats.base import Scan
from nlip_jax.data.formats.collect import Collector
from nlip_jax.data.formats.reading import checked, open_stream, read_image_file, resolve
from nlip_jax.data.formats.texts import read_texts
from nlip_jax.data.storage import File, Storage
from nlip_jax.errors import UsageError

if TYPE_CHECKING:
    from nlip_jax.data.formats.parquet import ParquetFormat

_AT_ONCE = 4096  # rows that are Python objects at once
_RECENT_BYTES = 256 << 20

Cell = bytes | list[bytes | None] | None


def scan(layout: "ParquetFormat", path: str, storage: Storage) -> Scan:
    """Finds the rows that have captions.

    Args:
      layout: names of the columns.
      path: of the file.
      storage: how it is reached.

    Raises:
      UsageError: no Parquet file, or one without these columns.
      OSError: it cannot be read.
    """
    file = storage.open(path)
    try:
        parquet = _parse(path, file)
        image = _check_columns(layout, path, parquet.schema_arrow)
        collector = Collector(layout.row)
        for group in range(parquet.num_row_groups):
            _scan_group(layout, image, parquet, group, collector)
        return collector.scan(file.status)
    finally:
        file.close()


class OpenParquet:
    """A file to read rows from; threads may share it.

    Args:
      layout: names of the columns.
      path: of the file.
      storage: how it, and images it names, are reached.

    Raises:
      UsageError: no Parquet file, or one without these columns.
      OSError: it cannot be read.
    """

    def __init__(self, layout: "ParquetFormat", path: str, storage: Storage) -> None:
        self._layout, self._storage = layout, storage
        self._file = storage.open(path)
        parquet = _parse(path, self._file)
        self._image = _check_columns(layout, path, parquet.schema_arrow)
        self._metadata = parquet.metadata

    def image(self, row: np.void) -> bytes:
        """The image file of a row."""
        data = self._cell(row, self._image.data)
        if data is not None:
            return checked(data, len(data))
        where = _path(self._cell(row, self._image.path))
        if not where:
            raise ReadError("missing_image", "neither bytes nor a path")
        where = resolve(where, shard=self._file.path, root=self._layout.root)
        return read_image_file(where, self._storage)

    def captions(self, row: np.void) -> list[list[str]]:
        """Captions of a row for every caption column in turn."""
        texts = read_texts({name: self._cell(row, name) for name in self._layout.caption_columns})
        if texts.problem:
            raise ReadError("unreadable_caption", texts.complaint)
        return texts.by_key

    def key(self, row: np.void) -> str:
        """The path of the image if the file has one, else the number of the row."""
        try:
            path = _path(self._cell(row, self._image.path))
        except ReadError:
            path = ""
        return _key(path, *row.item())

    def _cell(self, row: np.void, leaf: str) -> Cell:
        if not leaf:
            return None
        group, number = row.item()
        key = (self._file.path, self._file.status, group, leaf)
        try:
            return _RECENT.get(key, lambda: self._read(group, leaf))[number].as_py()
        except (pa.ArrowException, OSError) as error:
            raise ReadError("shard_unreadable", f"row group {group}: {error}") from error
        except IndexError as error:
            raise ReadError("missing_bytes", f"row group {group} has no row {number}") from error

    def _read(self, group: int, leaf: str) -> pa.ChunkedArray:
        # A reader has a position, so every thread takes one of its own.
        stream = open_stream(self._file)
        parquet = pq.ParquetFile(stream, metadata=self._metadata, pre_buffer=False)
        return _read_leaf(parquet, group, leaf)


class _Recent:
    """What was decoded lately.

    There is one for the process and not one for every open file, so that its bound holds for all.
    """

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes, self._bytes = max_bytes, 0
        self._columns: OrderedDict[tuple, pa.ChunkedArray] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, key: tuple, read: Callable[[], pa.ChunkedArray]) -> pa.ChunkedArray:
        """What is kept or read for a key; the newest is kept even where it alone is too large."""
        with self._lock:
            if key in self._columns:
                self._columns.move_to_end(key)
                return self._columns[key]
        column = read()  # without the lock: threads decode at the same time, now and then twice
        with self._lock:
            if key not in self._columns:
                self._columns[key] = column
                self._bytes += column.nbytes
            while self._bytes > self._max_bytes and len(self._columns) > 1:
                self._bytes -= self._columns.popitem(last=False)[1].nbytes
        return column


_RECENT = _Recent(_RECENT_BYTES)


@dataclass(frozen=True)
class _ImageColumn:
    """Leaves of the image column: where the files and where their paths are; empty for none."""

    data: str
    path: str


def _parse(path: str, file: File) -> pq.ParquetFile:
    try:
        return pq.ParquetFile(open_stream(file), pre_buffer=False)
    except pa.ArrowInvalid as error:
        raise UsageError(f"{path} is no Parquet file: {error}") from error


def _check_columns(layout: "ParquetFormat", path: str, schema: pa.Schema) -> _ImageColumn:
    types = {field.name: field.type for field in schema}

    def refuse(name: str, what: str) -> UsageError:
        has = ", ".join(f"{name} ({kind})" for name, kind in types.items())
        return UsageError(f"{path} has no column {name!r} with {what}; it has {has}")

    name = layout.image_column
    kind = types.get(name, pa.null())
    leaves = (
        {field.name: (f"{name}.{field.name}", field.type) for field in kind.fields}
        if pa.types.is_struct(kind)
        else {"bytes": (name, kind), "path": (name, kind)}
    )
    data, data_type = leaves.get("bytes", ("", pa.null()))
    where, path_type = leaves.get("path", ("", pa.null()))
    image = _ImageColumn(
        data=data if _is_binary(data_type) else "", path=where if _is_text(path_type) else ""
    )
    if not (image.data or image.path):
        raise refuse(name, "image files, paths or a struct of bytes and path")
    for name in layout.caption_columns:
        kind = types.get(name, pa.null())
        if not _is_text(kind.value_type if _is_list(kind) else kind):
            raise refuse(name, "texts or lists of texts")
    return image


def _is_binary(kind: pa.DataType) -> bool:
    return pa.types.is_binary(kind) or pa.types.is_large_binary(kind)


def _is_text(kind: pa.DataType) -> bool:
    if pa.types.is_dictionary(kind):
        return _is_text(kind.value_type)
    return pa.types.is_string(kind) or pa.types.is_large_string(kind)


def _is_list(kind: pa.DataType) -> bool:
    types = pa.types
    return types.is_list(kind) or types.is_large_list(kind) or types.is_fixed_size_list(kind)


def _scan_group(
    layout: "ParquetFormat",
    image: _ImageColumn,
    parquet: pq.ParquetFile,
    group: int,
    collector: Collector,
) -> None:
    """Reads captions and paths, and the images only where some of them may be missing."""
    lengths = parquet.metadata.row_group(group).num_rows
    paths = _cells(parquet, group, image.path, lengths)
    captions = [_cells(parquet, group, name, lengths) for name in layout.caption_columns]
    missing = _missing_images(image, parquet, group)
    for number, (path, *values) in enumerate(zip(paths, *captions, strict=True)):
        key = _key(_path(path), group, number)
        if missing[number]:
            collector.leave_out("unusable_image", f"{key}: neither bytes nor a path")
        else:
            texts = read_texts(dict(zip(layout.caption_columns, values, strict=True)))
            collector.add((group, number), key=key, texts=texts)


def _missing_images(image: _ImageColumn, parquet: pq.ParquetFile, group: int) -> np.ndarray:
    """Rows with neither bytes nor path, `[n]` bool."""
    metadata = parquet.metadata.row_group(group)
    columns = [metadata.column(number) for number in range(metadata.num_columns)]
    nulls = {
        column.path_in_schema: column.statistics.null_count
        for column in columns
        if column.statistics and column.statistics.has_null_count
    }
    leaves = [leaf for leaf in (image.path, image.data) if leaf]
    missing = np.full(metadata.num_rows, 0 not in [nulls.get(leaf) for leaf in leaves])
    for leaf in leaves:
        if missing.any():
            missing &= _read_leaf(parquet, group, leaf).is_null().to_numpy()
    return missing


def _cells(parquet: pq.ParquetFile, group: int, leaf: str, length: int) -> Iterator[Cell]:
    """The values of a leaf in a row group; None for each where there is no such leaf."""
    if not leaf:
        yield from [None] * length
        return
    column = _read_leaf(parquet, group, leaf)
    for start in range(0, length, _AT_ONCE):
        yield from column.slice(start, _AT_ONCE).to_pylist()


def _read_leaf(parquet: pq.ParquetFile, group: int, leaf: str) -> pa.ChunkedArray:
    """A column or a field of one, with texts as bytes: those that are no UTF-8 must not raise."""
    table = parquet.read_row_group(group, columns=[leaf], use_threads=False)
    column = table.column(0)
    while pa.types.is_struct(column.type):
        (column,) = column.flatten()
    binary = pa.large_binary()
    return column.cast(pa.large_list(binary) if _is_list(column.type) else binary)


def _path(cell: Cell) -> str:
    """A path as the operating system takes it, whatever its bytes."""
    return cell.decode("utf-8", "surrogateescape").strip() if cell else ""


def _key(path: str, group: int, number: int) -> str:
    readable = path.encode("utf-8", "replace").decode()
    return readable or f"row {number} of row group {group}"
