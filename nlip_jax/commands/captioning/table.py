"""The captions of a data set in words: captions.parquet."""

import os
from collections.abc import Iterator

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from nlip_jax.commands.captioning.data_set import Data
from nlip_jax.commands.captioning.model import CaptionModel
from nlip_jax.commands.captioning.output import Output
from nlip_jax.data.failures import ReadError
from nlip_jax.data.source import image_ids, sample_names, shard_names
from nlip_jax.data.text.tokenizer import PAD
from nlip_jax.train import stop

_ROW_GROUP = 1 << 14  # examples in memory at a time
_IDS = 1 << 20  # looked through at a time for those that take part

SCHEMA = pa.schema(
    [
        ("example_id", pa.int64()),
        ("shard", pa.dictionary(pa.int32(), pa.string())),
        ("key", pa.string()),
        ("caption", pa.string()),  # its own; null where it cannot be read
        ("concepts", pa.list_(pa.string())),
        ("synthetic_caption", pa.string()),  # null where there is none
    ]
)


def write_table(
    model: CaptionModel, data: Data, output: Output, columns: dict[str, np.ndarray]
) -> dict[str, float]:
    """Writes captions.parquet, whole or not at all; memory is that of a few thousand examples.

    Args:
      model: that made the captions.
      data: the examples.
      output: whose table is written.
      columns: as of `caption_all`.

    Returns:
      examples, captioned ones, distinct captions as a share of these, and mean tokens of one.

    Raises:
      Preempted: asked to stop.
    """
    counts, hashes = np.zeros(3, np.int64), []
    temporary = output.table.with_name(f"{output.table.name}.{os.getpid()}.tmp")
    try:
        with pq.ParquetWriter(temporary, SCHEMA, use_dictionary=["shard"]) as writer:
            for ids in _blocks(data):
                stop.check()
                rows = columns["synthetic_caption"][ids]
                writer.write_table(_lines(model, data, ids, rows, columns.get("concepts")))
                made = (rows != PAD).any(axis=1)
                counts += [len(ids), made.sum(), (rows[made] != PAD).sum() - 2 * made.sum()]
                hashes.append(_hash(rows[made]))
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
        temporary.replace(output.table)
    finally:
        temporary.unlink(missing_ok=True)
    examples, captioned, tokens = counts.tolist()
    distinct = len(np.unique(np.concatenate(hashes)))
    return {
        "examples": examples,
        "captioned": captioned,
        "distinct_share": distinct / max(captioned, 1),
        "mean_tokens": tokens / max(captioned, 1),
    }


def _blocks(data: Data) -> Iterator[np.ndarray]:
    """The ids of all examples that take part, some at a time."""
    for start in range(0, data.members.num_ids, _IDS):
        stop_at = min(start + _IDS, data.members.num_ids)
        ids = start + np.flatnonzero(data.members.mask(start, stop_at))
        yield from np.split(ids, range(_ROW_GROUP, len(ids), _ROW_GROUP))


def _lines(
    model: CaptionModel,
    data: Data,
    ids: np.ndarray,
    rows: np.ndarray,
    concepts: np.ndarray | None,
) -> pa.Table:
    images = image_ids(data.source, ids)
    names = [name.key for name in sample_names(data.source, images)]
    words = [[] for _ in ids] if concepts is None else map(model.concepts_of, concepts[ids])
    values = [
        ids,
        pa.array(_clean(shard_names(data.source, images))).dictionary_encode(),
        _clean(names),
        _clean([read_caption(data, example_id) for example_id in ids.tolist()]),
        list(words),
        _clean([model.text_of(row) or None for row in rows]),
    ]
    return pa.table(
        [
            pa.array(column, field.type) if isinstance(column, list) else column
            for column, field in zip(values, SCHEMA, strict=True)
        ],
        schema=SCHEMA,
    )


def read_caption(data: Data, example_id: int) -> str | None:
    """An example's own caption; None where it cannot be read."""
    try:
        return data.source.caption(example_id)
    except ReadError:
        return None


def _clean(texts: list[str | None]) -> list[str | None]:
    """Texts that UTF-8 has bytes for: JSON can spell half surrogate pairs."""
    return [text and text.encode("utf-8", "replace").decode() for text in texts]


def _hash(rows: np.ndarray) -> np.ndarray:
    """A number for each row, other ones for other rows but by a chance of 2^-64: `[k]` uint64."""
    rng = np.random.default_rng(0)
    factors = rng.integers(0, 1 << 63, rows.shape[1], np.uint64) * np.uint64(2) + np.uint64(1)
    return rows.astype(np.uint64) @ factors
