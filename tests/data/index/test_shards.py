"""Naming shards."""

import os

import pytest

from nlip_jax.data.index.shards import expand_shards, missing_numbers
from nlip_jax.data.storage import Storage
from nlip_jax.errors import UsageError


def test_expand_shards(tmp_path, caplog):
    for name in ("00000.tar", "00001.tar", "00003.tar", "a.txt", "x[1].tar"):
        (tmp_path / name).write_bytes(b"")
    (tmp_path / "folder.tar").mkdir()
    (tmp_path / "0").mkdir()
    (tmp_path / "0" / "b.tar").write_bytes(b"")

    def names(patterns):
        return [os.path.basename(path) for path in expand_shards(patterns, storage=Storage())]

    assert names(f"{tmp_path}/0*.tar") == ["00000.tar", "00001.tar", "00003.tar"]
    assert names(f"{tmp_path}/{{00000..00001}}.tar") == ["00000.tar", "00001.tar"]
    assert not caplog.records
    assert names(f"{tmp_path}/000{{0..0}}{{1..3}}.tar") == ["00001.tar", "00003.tar"]
    assert "1 of 3 shards" in caplog.text and "00002.tar" in caplog.text
    assert names(f"{tmp_path}/{{0..1}}/*.tar") == ["b.tar"]
    assert names(f"{tmp_path}/x[1].tar") == ["x[1].tar"]
    assert names([f"{tmp_path}/00003.tar", f"{tmp_path}/*0[03].tar"]) == ["00000.tar", "00003.tar"]
    with pytest.raises(UsageError, match=r"no shard matches '.*none\*': check the path$"):
        expand_shards([f"{tmp_path}/*.tar", f"{tmp_path}/none*"], storage=Storage())
    with pytest.raises(UsageError, match=r"no shard matches .*: add /\*\.parquet$"):
        expand_shards(str(tmp_path), storage=Storage(), extensions=("parquet",))


def test_a_range_is_looked_up_at_once(tmp_path):
    class Counting(Storage):
        asked = 0

        def glob(self, pattern):
            Counting.asked += 1
            return super().glob(pattern)

    for number in range(50):
        (tmp_path / f"{number:05d}.tar").write_bytes(b"")
    pattern = f"{tmp_path}/{{00000..00099}}.tar"
    assert len(expand_shards(pattern, storage=Counting())) == 50 and Counting.asked == 1


@pytest.mark.parametrize(
    ("names", "missing"),
    [
        (["a/00000.tar", "a/00001.tar", "a/00003.tar"], ["a/00002.tar"]),
        (["a/00003.tar", "a/00004.tar"], []),
        (["a/0.tar", "a/1.tar", "b/5.tar", "b/7.tar", "b/8.tar"], ["b/6.tar"]),
        (["x-01-of-04.tar", "x-02-of-04.tar"], ["x-00-of-04.tar", "x-03-of-04.tar"]),
        (["v2-7.csv", "v2-9.csv", "v2-10.csv", "v2-12.csv"], ["v2-11.csv", "v2-8.csv"]),
        (["day-20240131.tar", "day-20240229.tar", "day-20240331.tar"], []),
        (["gs://2b/00.tar", "gs://2b/02.tar"], ["gs://2b/01.tar"]),
        (["one.tar", "two.tar"], []),
        (["00000-of-99999999999.tar"], []),
    ],
)
def test_missing_numbers(names, missing):
    assert missing_numbers(names) == missing
