"""Reads everything that a format finds in a shard, for the tests of formats."""

import pickle

from nlip_jax.data.failures import ReadError
from nlip_jax.data.formats.base import COUNTS
from nlip_jax.data.storage import Storage


def scan(format, path, storage=None):
    """The scan of a shard, after a look at what holds for all of them."""
    found = pickle.loads(pickle.dumps(format)).scan(str(path), storage or Storage())
    assert found.rows.dtype == format.row
    assert format.row.itemsize <= 24
    assert len(found.rows) == len(found.captions) == found.counts["images"]
    assert found.captions.sum() == found.counts["captions"]
    assert set(found.counts) <= set(COUNTS)
    return found


def contents(format, path, storage=None):
    """(key, image or kind of failure, captions of the first key that has any) of every row."""
    storage = storage or Storage()
    found = scan(format, path, storage)
    opened = format.open(str(path), storage)
    read = []
    for row, count in zip(found.rows, found.captions, strict=True):
        try:
            image = opened.image(row)
        except ReadError as error:
            image = error.kind
        by_key = opened.captions(row)
        assert len(by_key) == format.num_caption_keys
        captions = next(filter(None, by_key))
        assert len(captions) == count
        read.append((opened.key(row), image, captions))
    return read


def left_out(found):
    """What a scan counted besides images and captions."""
    return {name: n for name, n in found.counts.items() if n and name not in ("images", "captions")}
