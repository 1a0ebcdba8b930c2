import pickle
import threading

import fsspec
import msgpack
import numpy as np
import pytest
from array_record.python.array_record_module import ArrayRecordWriter
from shards import contents, left_out, scan
from tars import encode, pixels
from tensorflow_datasets.proto import tf_example_pb2

from nlip_jax.data.failures import ReadError
from nlip_jax.data.formats.array_record import ArrayRecordFormat
from nlip_jax.data.formats.records import decode_record, encode_record
from nlip_jax.data.formats.tf_example import parse_example
from nlip_jax.data.storage import Storage
from nlip_jax.errors import UsageError

IMAGES = [encode(pixels(seed)) for seed in range(3)]


def write(path, records, options="group_size:1"):
    writer = ArrayRecordWriter(str(path), options)
    for record in records:
        writer.write(record)
    writer.close()
    return str(path)


def example(**features):
    """A tf.train.Example by the classes of TFDS, which are not those under test."""
    message = tf_example_pb2.Example()
    for name, values in features.items():
        feature = message.features.feature[name.replace("__", "/")]
        kind = feature.bytes_list if isinstance(values[0], bytes) else feature.int64_list
        kind.value.extend(values)
    return message.SerializeToString()


def test_records_come_back(tmp_path):
    records = [
        encode_record(IMAGES[0], ["one", " two\0", "  ", "half \ud800"], "k/0"),
        encode_record(IMAGES[1], ["\u05d0\u05d1 \U0001f600"], "k/1", {"width": 32, "noise": 0.5}),
    ]
    assert decode_record(records[1]) == {
        "key": "k/1",
        "captions": ["\u05d0\u05d1 \U0001f600"],
        "image": IMAGES[1],
        "width": 32,
        "noise": 0.5,
    }
    assert contents(ArrayRecordFormat(), write(tmp_path / "x.array_record", records)) == [
        ("k/0", IMAGES[0], ["one", "two", "half ?"]),
        ("k/1", IMAGES[1], ["\u05d0\u05d1 \U0001f600"]),
    ]


def test_extra_fields_of_records():
    with pytest.raises(ValueError, match="key, captions, image are taken"):
        encode_record(b"x", [], "k", {"key": "other"})
    with pytest.raises(ValueError, match="'when'"):
        encode_record(b"x", [], "k", {"when": object()})


def test_records_of_others(tmp_path):
    """One text instead of a list, no key, bytes for text, another name for the image."""
    records = [
        msgpack.packb({"jpg": IMAGES[0], "caption": "one"}),
        msgpack.packb({"jpg": IMAGES[1], "caption": "caf\u00e9".encode()}),
        msgpack.packb({"jpg": IMAGES[2], "captions": None, "caption": ["x", None, "y"]}),
    ]
    path = write(tmp_path / "x.array_record", records)
    assert contents(ArrayRecordFormat(image_key="jpg"), path) == [
        ("record 0", IMAGES[0], ["one"]),
        ("record 1", IMAGES[1], ["caf\u00e9"]),
        ("record 2", IMAGES[2], ["x", "y"]),
    ]


def test_examples(tmp_path):
    records = [
        example(image=[IMAGES[0]], captions__text=[b"one", b"two"], captions__id=[1, 2]),
        example(image=[IMAGES[1]], captions__text="\u05d0".encode().split(), filename=[b"b.jpg"]),
    ]
    path = write(tmp_path / "x.array_record", records)
    format = ArrayRecordFormat(caption_keys=("captions/text",), sample_key="filename")
    assert contents(format, path) == [
        ("record 0", IMAGES[0], ["one", "two"]),
        ("b.jpg", IMAGES[1], ["\u05d0"]),
    ]


def test_parse_example():
    data = example(b=[b"", b"\xff"], text=["\u05d0".encode()], numbers=[1, 2, 3])
    assert parse_example(data) == {"b": [b"", b"\xff"], "text": ["\u05d0".encode()]}
    assert parse_example(b"") == {}
    with pytest.raises(ValueError, match=r"no tf\.train\.Example"):
        parse_example(data[:-1])


def test_what_is_of_no_use_is_counted(tmp_path):
    records = [
        encode_record(IMAGES[0], ["fine"], "0"),
        encode_record(IMAGES[0], [" "], "1"),
        encode_record(b"", ["no image"], "2"),
        msgpack.packb({"image": IMAGES[0], "key": "3"}),
        msgpack.packb({"image": "text", "captions": ["x"]}),
        msgpack.packb({"image": IMAGES[0], "captions": [1]}),
        msgpack.packb({"image": IMAGES[0], "captions": [b"\xff"]}),
        msgpack.packb([1, 2]),
        b"\xc1 nothing",
        b"",
        pickle.dumps({"image": IMAGES[0], "captions": ["x"]}),
        encode_record(IMAGES[1], ["fine"], "11"),
    ]
    found = scan(ArrayRecordFormat(), path := write(tmp_path / "x.array_record", records))
    assert left_out(found) == {
        "blank_caption": 1,
        "without_caption": 1,
        "unusable_image": 2,
        "unreadable_caption": 6,
    }
    assert [key for key, _, _ in contents(ArrayRecordFormat(), path)] == ["0", "11"]


def test_pickles_are_refused(tmp_path):
    for protocol in range(2, 6):
        data = pickle.dumps({"image": IMAGES[0], "caption": "x"}, protocol)
        path = write(tmp_path / f"{protocol}.array_record", [data])
        with pytest.raises(UsageError, match=r"first record .* is a pickle, which could run any"):
            ArrayRecordFormat().scan(path, Storage())


@pytest.mark.parametrize(
    ("record", "message"),
    [
        (msgpack.packb({"img": b"x", "text": "y"}), "first record has 'img', 'text'"),
        (msgpack.packb({"image": b"x", "text": "y"}), "'captions' or 'caption' .* are asked for"),
        (example(jpeg=[b"x"], captions=[b"y"]), "first record has 'captions', 'jpeg'"),
        (b"plain text", "neither a msgpack map nor a tf.train.Example"),
    ],
    # protobuf orders the fields of a map by chance
    ids=["no image", "no caption", "neither", "no record"],
)
def test_other_records(tmp_path, record, message):
    path = write(tmp_path / "x.array_record", [record])
    with pytest.raises(UsageError, match=message):
        ArrayRecordFormat().scan(path, Storage())


def test_files_that_are_no_array_record(tmp_path):
    whole = write(tmp_path / "whole", [encode_record(IMAGES[0] * 50, ["x"], "0")] * 3)
    data = (tmp_path / "whole").read_bytes()
    for name, content in [("empty", b""), ("text", b"hello" * 99), ("cut", data[: len(data) // 2])]:
        (tmp_path / name).write_bytes(content)
        with pytest.raises(OSError, match=f"{name} is no whole ArrayRecord file"):
            ArrayRecordFormat().scan(str(tmp_path / name), Storage())
    with pytest.raises(FileNotFoundError):
        ArrayRecordFormat().scan(f"{whole}-not", Storage())


def test_large_groups_are_refused(tmp_path):
    path = write(tmp_path / "x", [encode_record(IMAGES[0], ["x"], "0")], options="group_size:1000")
    with pytest.raises(UsageError, match=r"groups of 1000.*group_size:1"):
        ArrayRecordFormat().scan(path, Storage())


def test_damage_costs_the_records_that_it_hits(tmp_path):
    rng = np.random.default_rng(0)
    records = [encode_record(rng.bytes(50_000), [f"c{i}"], str(i)) for i in range(40)]
    path = tmp_path / "x.array_record"
    write(path, records)
    data = bytearray(path.read_bytes())
    data[1_000_000:1_020_000] = bytes(20_000)
    rows = scan(ArrayRecordFormat(), path).rows
    path.write_bytes(data)
    found = scan(ArrayRecordFormat(), path)
    assert 36 < len(found.rows) < 40
    assert left_out(found) == {"unreadable_caption": 40 - len(found.rows)}
    opened = ArrayRecordFormat().open(str(path), Storage())
    (lost, *_) = set(range(40)) - set(found.rows["record"].tolist())
    with pytest.raises(ReadError) as raised:
        opened.image(rows[lost])
    assert raised.value.kind == "shard_unreadable"
    assert opened.key(rows[lost]) == f"record {lost}"
    assert opened.captions(rows[39]) == [["c39"], []]


def test_threads_share_a_shard(tmp_path):
    records = [encode_record(bytes([i]) * 999, [f"c{i}"], str(i)) for i in range(50)]
    path = write(tmp_path / "x.array_record", records)
    rows = scan(ArrayRecordFormat(), path).rows
    opened = ArrayRecordFormat().open(path, Storage())
    wrong = []

    def read(seed):
        for i in np.random.default_rng(seed).integers(0, 50, 100).tolist():
            if opened.image(rows[i]) != bytes([i]) * 999 or opened.key(rows[i]) != str(i):
                wrong.append(i)

    threads = [threading.Thread(target=read, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_remote_file_is_read_from_a_copy(tmp_path):
    path = write(tmp_path / "x.array_record", [encode_record(IMAGES[0], ["x"], "0")])
    with open(path, "rb") as file:
        fsspec.filesystem("memory").pipe("/record-test/x.array_record", file.read())
    remote = "memory://record-test/x.array_record"
    with pytest.raises(UsageError, match="cache_dir"):
        ArrayRecordFormat().scan(remote, Storage())
    storage = Storage(cache_dir=str(tmp_path / "cache"))
    assert contents(ArrayRecordFormat(), remote, storage) == [("0", IMAGES[0], ["x"])]
