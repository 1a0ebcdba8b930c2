"""The records of a CSV file and the bytes each takes, so that one can be read again on its own."""

import csv
from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO

_MAX_LINE = 1 << 24  # bytes; a longer one is no text


@dataclass(frozen=True)
class CsvRecord:
    """A record from byte `offset` to `stop`.

    Attributes:
      offset: of its first byte in the stream.
      stop: of the byte after it.
      cells: its fields; of no use where there is a problem.
      problem: what is wrong with it; empty if nothing is.
    """

    offset: int
    stop: int
    cells: list[str]
    problem: str = ""


class CsvRecords:
    """The records of a stream, without blank lines.

    A record that makes no sense is taken to end with its first line: an open quote spoils one
    line, not the rest of the file.

    Args:
      stream: at the beginning of a record; UTF-8, with or without a mark of it.
      separator: one character.
      width: number of fields that a record must have; 0 for any.
    """

    def __init__(self, stream: BinaryIO, separator: str, *, width: int = 0) -> None:
        self.width = width
        self._lines = _Lines(stream)
        # Strict, or a quote that is never closed would take all up to the next one for a field.
        self._reader = csv.reader(self._lines, delimiter=separator, strict=True)

    def __iter__(self) -> Iterator[CsvRecord]:
        return self

    def __next__(self) -> CsvRecord:
        while True:
            start = self._lines.offset
            self._lines.begin()
            try:
                cells, problem = next(self._reader), ""
                if cells and self.width and len(cells) != self.width:
                    problem = f"{len(cells)} fields, the header has {self.width}"
            except (csv.Error, UnicodeDecodeError) as error:
                cells, problem = [], str(error)
            if problem:
                self._lines.back()
            if cells or problem:
                return CsvRecord(start, self._lines.offset, cells, problem)


class _Lines:
    """Lines of a stream for `csv.reader`, which takes as many as a record has.

    Attributes:
      offset: of the next line.
    """

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream
        self.offset = 0
        self.begin()

    def begin(self) -> None:
        """Begins a record."""
        self._second = None

    def back(self) -> None:
        """Goes back to the second line of the record."""
        if self.offset != self._second:
            self.offset = self._stream.seek(self._second)

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        line = self._stream.readline(_MAX_LINE)
        if not line:
            raise StopIteration
        encoding = "utf-8" if self.offset else "utf-8-sig"
        self.offset += len(line)
        if self._second is None:
            self._second = self.offset
        return line.decode(encoding)
