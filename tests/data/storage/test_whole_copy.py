import os
import threading
from pathlib import Path

import pytest

from nlip_jax.data.storage import Storage, whole_copy
from nlip_jax.data.storage import cache as caches
from nlip_jax.errors import UsageError


@pytest.fixture(autouse=True)
def small_pieces(monkeypatch):
    monkeypatch.setattr(whole_copy, "_PIECE", 1000)
    caches.open_cache.cache_clear()


def test_a_copy_is_made_once(store, data, tmp_path):
    content = data(3_500)
    path = store.put("b/a.array_record", content)
    storage = store.storage(cache_dir=str(tmp_path))
    copy = Path(storage.local_path(path))
    assert copy.read_bytes() == content and copy.name.endswith("-a.array_record")
    assert store.fetched() == [(0, 1000), (1000, 2000), (2000, 3000), (3000, 3500)]
    assert storage.local_path(path) == str(copy) and len(store.fetched()) == 4
    assert os.listdir(copy.parent) == [copy.name]


def test_another_version_has_another_copy(store, tmp_path):
    storage = store.storage(cache_dir=str(tmp_path))
    first = storage.local_path(store.put("b/a", b"one"))
    second = storage.local_path(store.put("b/a", b"two"))
    assert Path(first).read_bytes() == b"one" and Path(second).read_bytes() == b"two"


def test_a_copy_that_was_cut_is_made_again(store, data, tmp_path):
    content = data(3_500)
    path = store.put("b/a", content)
    storage = store.storage(cache_dir=str(tmp_path))
    copy = Path(storage.local_path(path))
    copy.write_bytes(content[:2_000])
    assert Path(storage.local_path(path)).read_bytes() == content


def test_a_kill_in_the_middle_leaves_nothing_wrong(store, data, tmp_path, monkeypatch):
    content = data(3_500)
    path = store.put("b/a", content)
    storage = store.storage(cache_dir=str(tmp_path), attempts=1)
    store.fail(None, None, ConnectionResetError("gone"))  # the status, one piece, no more
    with pytest.raises(OSError, match="gone"):
        storage.local_path(path)
    (left,) = (tmp_path / "copies").iterdir()
    assert left.suffix == ".tmp" and left.stat().st_size == 1000
    copy = Path(storage.local_path(path))
    assert copy.read_bytes() == content and os.listdir(copy.parent) == [copy.name]


def test_threads_that_want_one_copy_fetch_it_once(store, data, tmp_path):
    content = data(50_000)
    path = store.put("b/a", content)
    storage = store.storage(cache_dir=str(tmp_path))
    copies = []
    threads = [
        threading.Thread(target=lambda: copies.append(storage.local_path(path))) for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(copies)) == 1 and len(copies) == 4
    assert Path(copies[0]).read_bytes() == content and len(store.fetched()) == 50


def test_copies_share_the_bound_with_blocks(store, data, tmp_path):
    storage = store.storage(cache_dir=str(tmp_path), cache_bytes=10_000)
    for number in range(8):
        copy = storage.local_path(store.put(f"b/{number}", data(4_000)))
        os.utime(copy, ns=(number * 10**9, os.stat(copy).st_mtime_ns))
    assert sum(p.stat().st_size for p in (tmp_path / "copies").iterdir()) <= 10_000
    assert Path(copy).exists()


def test_a_file_larger_than_the_cache(store, data, tmp_path):
    storage = store.storage(cache_dir=str(tmp_path), cache_bytes=1_000)
    with pytest.raises(UsageError, match="cache_bytes"):
        storage.local_path(store.put("b/a", data(1_001)))


def test_without_a_folder(store):
    with pytest.raises(UsageError, match="cache_dir"):
        Storage().local_path(store.put("b/a", b"x"))
