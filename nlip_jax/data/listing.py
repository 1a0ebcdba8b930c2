"""A list of all examples of a data set on disk: captions, names, and what tells equal texts.

It is made in parts, by several processes, in any order and in as many sittings as it takes; a part
is there whole or not at all. What is made of the list reads it a part at a time.
"""

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from nlip_jax.data.duplicates.signatures import PLACES, signatures, text_numbers
from nlip_jax.data.duplicates.words import words_of
from nlip_jax.data.failures import ReadError
from nlip_jax.data.members import Members
from nlip_jax.data.source import Source, image_ids, sample_names, shard_names

PART = 1 << 16  # example ids in a part
_BLOCK = 1 << 12  # examples read together

SCHEMA = pa.schema(
    [
        ("example_id", pa.int64()),
        ("shard", pa.dictionary(pa.int32(), pa.string())),
        ("key", pa.string()),
        ("uid", pa.string()),  # empty where there is none
        ("caption", pa.string()),  # null where it cannot be read
        ("text_number", pa.uint64()),
        ("signature", pa.binary(PLACES)),
    ]
)


@dataclass(frozen=True)
class Listing:
    """The parts of a list, finished or not.

    Attributes:
      folder: of the parts; of this list alone.
      num_ids: of the data set.
    """

    folder: Path
    num_ids: int

    @property
    def num_parts(self) -> int:
        """Parts when it is whole."""
        return -(-self.num_ids // PART)

    def path(self, part: int) -> Path:
        """The file of a part."""
        return self.folder / f"part-{part:06d}.parquet"

    def finished(self) -> list[int]:
        """Parts that are there, ascending."""
        return sorted(int(path.stem[5:]) for path in self.folder.glob("part-??????.parquet"))

    def num_listed(self) -> int:
        """Examples that are listed so far."""
        return sum(pq.read_metadata(self.path(part)).num_rows for part in self.finished())

    def columns(self, *names: str) -> Iterator[pa.Table]:
        """Some columns of all parts that are there, a part at a time, in the order of ids."""
        for part in self.finished():
            yield pq.read_table(self.path(part), columns=list(names), use_threads=False)

    def ids(self) -> np.ndarray:
        """The examples that are listed, `[m]` int64, ascending."""
        found, start = np.zeros(self.num_listed(), np.int64), 0
        for table in self.columns("example_id"):
            found[start : start + len(table)] = table["example_id"].to_numpy()
            start += len(table)
        return found

    def signatures(self) -> Iterator[np.ndarray]:
        """The signatures of these, `[k, PLACES]` uint8, a part at a time."""
        for table in self.columns("signature"):
            column = table["signature"].combine_chunks()
            data = np.frombuffer(column.buffers()[1], np.uint8)
            yield data.reshape(-1, PLACES)[column.offset : column.offset + len(column)]


@dataclass(frozen=True)
class ListPart:
    """Makes parts of a list; a task of `run_tasks`.

    Attributes:
      listing: where they go.
      source: the examples.
      members: those of them that are listed.
    """

    listing: Listing
    source: Source
    members: Members

    def __call__(self, part: int, advance: Callable[[int], None]) -> int:
        """Makes a part; returns how many of its captions cannot be read."""
        start, stop = part * PART, min((part + 1) * PART, self.listing.num_ids)
        ids = start + np.flatnonzero(self.members.mask(start, stop))
        blocks = [
            _list(self.source, ids[first : first + _BLOCK], advance)
            for first in range(0, len(ids), _BLOCK)
        ]
        table = pa.concat_tables([SCHEMA.empty_table(), *blocks]).unify_dictionaries()
        _write(self.listing.path(part), table)
        return table["caption"].null_count


def _list(source: Source, ids: np.ndarray, advance: Callable[[int], None]) -> pa.Table:
    """The lines of some examples."""
    images = image_ids(source, ids)
    names = sample_names(source, images)
    captions = [_caption(source, example_id) for example_id in ids.tolist()]
    texts = pa.array(captions, pa.string())
    words = words_of(texts)
    columns = [
        pa.array(ids),
        pa.array(_clean(shard_names(source, images))).dictionary_encode(),
        pa.array(_clean([name.key for name in names]), pa.string()),
        pa.array(_clean([name.uid for name in names]), pa.string()),
        texts,
        pa.array(text_numbers(words)),
        pa.FixedSizeBinaryArray.from_buffers(
            pa.binary(PLACES), len(ids), [None, pa.py_buffer(signatures(words))]
        ),
    ]
    advance(len(ids))
    return pa.table(columns, schema=SCHEMA)


def _caption(source: Source, example_id: int) -> str | None:
    try:
        return _clean([source.caption(example_id)])[0]
    except ReadError:
        return None


def _clean(texts: list[str]) -> list[str]:
    """Texts that UTF-8 has bytes for: JSON can spell half surrogate pairs."""
    return [text.encode("utf-8", "replace").decode() for text in texts]


def _write(path: Path, table: pa.Table) -> None:
    temporary = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("wb") as file:
            pq.write_table(table, file, use_dictionary=["shard"], row_group_size=PART)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
