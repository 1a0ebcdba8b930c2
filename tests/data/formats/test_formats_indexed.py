"""Every format through the index and the source that all of them share."""

import json
import pickle

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from array_record.python.array_record_module import ArrayRecordWriter
from shards import contents
from tars import encode, pixels

from nlip_jax.data.formats.array_record import ArrayRecordFormat
from nlip_jax.data.formats.folder import FolderFormat
from nlip_jax.data.formats.labelled import LabelledFormat
from nlip_jax.data.formats.parquet import ParquetFormat
from nlip_jax.data.formats.records import encode_record
from nlip_jax.data.formats.table import TableFormat
from nlip_jax.data.index.index import Index
from nlip_jax.data.index.update import update_index
from nlip_jax.data.sources.indexed import IndexedSource
from nlip_jax.data.storage import Storage
from nlip_jax.errors import UsageError

SAMPLES = [
    (f"{i}.jpg", encode(pixels(i)), [f"{i} {j} \u05d0" for j in range(i + 1)]) for i in range(4)
]


def write_table(folder, name, samples):
    lines = [f"{key}\t{caption}" for key, _, captions in samples for caption in captions]
    (folder / name).write_text("\n".join(["filepath\ttitle", *lines]))


def write_parquet(folder, name, samples):
    columns = {
        "image": pa.array([{"bytes": image, "path": key} for key, image, _ in samples]),
        "caption": [captions for *_, captions in samples],
    }
    pq.write_table(pa.table(columns), folder / name, row_group_size=1)


def write_folder(folder, name, samples):
    (folder / name).write_text(json.dumps({key: captions for key, _, captions in samples}))


def write_records(folder, name, samples):
    writer = ArrayRecordWriter(str(folder / name), "group_size:1")
    for key, image, captions in samples:
        writer.write(encode_record(image, captions, key))
    writer.close()


FORMATS = {
    "table": (TableFormat(), write_table),
    "parquet": (ParquetFormat(), write_parquet),
    "folder": (FolderFormat(), write_folder),
    "array_record": (ArrayRecordFormat(), write_records),
}


@pytest.mark.parametrize("keys", [(), ("caption", "caption")])
def test_caption_keys_that_are_none(keys):
    for make in (
        lambda: TableFormat(caption_columns=keys),
        lambda: ParquetFormat(caption_columns=keys),
        lambda: ArrayRecordFormat(caption_keys=keys),
    ):
        with pytest.raises(UsageError, match="name one or more, each once"):
            make()


@pytest.mark.parametrize("name", FORMATS)
def test_source_has_what_the_shards_hold(tmp_path, name):
    format, write = FORMATS[name]
    for key, image, _ in SAMPLES:
        (tmp_path / key).write_bytes(image)
    shards = [str(tmp_path / f"{i}.shard") for i in range(2)]
    write(tmp_path, "0.shard", SAMPLES[:3])
    write(tmp_path, "1.shard", SAMPLES[3:])
    storage = Storage()
    update_index(shards, format, tmp_path / "index", storage=storage)
    index = Index.open(tmp_path / "index", storage=storage)
    index.check(shards=shards, format=format)
    source = pickle.loads(pickle.dumps(IndexedSource(index, format, storage=storage)))

    expected = [caption for *_, captions in SAMPLES for caption in captions]
    assert [source.caption(i) for i in range(len(source))] == expected
    assert [source.image_id(i) for i in range(10)] == [0, 1, 1, 2, 2, 2, 3, 3, 3, 3]
    assert [source.picture(i) for i in range(4)] == [image for _, image, _ in SAMPLES]
    assert [source.place(i).key for i in range(4)] == [key for key, *_ in SAMPLES]
    assert source.place(3).shard == shards[1]


def test_caltech101(shared, tmp_path):
    folder = shared / "data" / "caltech101_test"
    path = str(folder / "caltech101_test.zip")
    format, storage = LabelledFormat(class_names=str(folder / "classnames.json")), Storage()
    update = update_index([path], format, tmp_path / "index", storage=storage)
    source = IndexedSource(update.index, format, storage=storage)
    found = contents(format, path)
    assert len(source) == len(found) == 505
    for i in range(0, 505, 50):
        assert (source.place(i).key, source.picture(i)) == found[i][:2]
        assert [source.caption(i)] == found[i][2]
