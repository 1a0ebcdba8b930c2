import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from nlip_jax.data.storage import Storage
from nlip_jax.data.storage import block_file as block_files
from nlip_jax.data.storage import cache as caches
from nlip_jax.errors import UsageError

BLOCK = 1000


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch):
    monkeypatch.setattr(block_files, "BLOCK", BLOCK)
    caches.open_cache.cache_clear()


def blocks(folder) -> list[Path]:
    return sorted(p for p in (folder / "blocks").rglob("*") if p.is_file())


def test_a_block_is_fetched_once(store, data, tmp_path):
    content = data(10_500)
    path = store.put("b/a", content)
    storage = store.storage(cache_dir=str(tmp_path))
    assert storage.open(path).read(2_500, 2_000) == content[2_500:4_500]
    assert store.fetched() == [(2000, 3000), (3000, 4000), (4000, 5000)]
    assert storage.open(path).read(0, 20_000) == content
    assert len(store.fetched()) == len(blocks(tmp_path)) == 11
    assert store.fetched()[-1] == (10_000, 10_500)
    store.forget()
    assert storage.open(path).read(0, 20_000) == content
    assert store.fetched() == []


def test_another_version_of_a_file_has_blocks_of_its_own(store, tmp_path):
    storage = store.storage(cache_dir=str(tmp_path))
    assert storage.open(store.put("b/a", b"one")).read(0, 3) == b"one"
    assert storage.open(store.put("b/a", b"two")).read(0, 3) == b"two"


@pytest.mark.parametrize("seen_before", [False, True])
@pytest.mark.parametrize(
    "spoil",
    [
        lambda block: b"",
        lambda block: block[:500],
        lambda block: block[:-1],
        lambda block: block + b"x",
        lambda block: bytes([block[0] ^ 1]) + block[1:],
        lambda block: block[:-1] + bytes([block[-1] ^ 1]),
        lambda block: bytes(len(block)),
    ],
)
def test_a_damaged_block_is_fetched_again(store, data, tmp_path, spoil, seen_before):
    content = data(3 * BLOCK)
    path = store.put("b/a", content)
    storage = store.storage(cache_dir=str(tmp_path))
    file = storage.open(path)
    assert file.read(0, 3 * BLOCK) == content
    for block in blocks(tmp_path):
        block.write_bytes(spoil(block.read_bytes()))
    store.forget()
    file = file if seen_before else storage.open(path)
    assert file.read(0, 3 * BLOCK) == content and len(store.fetched()) == 3
    store.forget()
    assert storage.open(path).read(0, 3 * BLOCK) == content and store.fetched() == []


def test_the_least_recently_used_blocks_go(store, data, tmp_path):
    content = data(40 * BLOCK)
    path = store.put("b/a", content)
    storage = store.storage(cache_dir=str(tmp_path), cache_bytes=20 * (BLOCK + 16))
    file = storage.open(path)
    for number in range(20):
        file.read(number * BLOCK, BLOCK)
        for block in blocks(tmp_path):  # age what is there by an hour
            status = block.stat()
            os.utime(block, ns=(status.st_atime_ns - 3600 * 10**9, status.st_mtime_ns))
    file.read(0, BLOCK)  # the oldest one is of use again
    for number in range(20, 40):
        file.read(number * BLOCK, BLOCK)
        assert len(blocks(tmp_path)) <= 21
    store.forget()
    file.read(39 * BLOCK, BLOCK)
    assert store.fetched() == []
    file.read(1 * BLOCK, BLOCK)
    assert store.fetched() == [(BLOCK, 2 * BLOCK)]


def test_used_blocks_outlive_unused_ones(store, data, tmp_path):
    path = store.put("b/a", data(40 * BLOCK))
    file = store.storage(cache_dir=str(tmp_path), cache_bytes=10 * (BLOCK + 16)).open(path)
    for number in range(8):
        file.read(number * BLOCK, BLOCK)
    for block in blocks(tmp_path):
        status = block.stat()
        os.utime(block, ns=(status.st_atime_ns - 3600 * 10**9, status.st_mtime_ns))
    file.read(3 * BLOCK, BLOCK)
    for number in range(10, 14):
        file.read(number * BLOCK, BLOCK)
    store.forget()
    file.read(3 * BLOCK, BLOCK)
    assert store.fetched() == []


def test_other_files_are_left_alone(store, data, tmp_path):
    (tmp_path / "copies").mkdir()
    others = [tmp_path / "thesis.tex", tmp_path / "copies" / "thesis.tex"]
    for other in others:
        other.write_bytes(bytes(50_000))
    path = store.put("b/a", data(40 * BLOCK))
    store.storage(cache_dir=str(tmp_path), cache_bytes=5_000).open(path).read(0, 40 * BLOCK)
    assert all(other.stat().st_size == 50_000 for other in others)
    assert sum(p.stat().st_size for p in blocks(tmp_path)) <= 5_000 + BLOCK


def test_what_a_kill_left_is_never_read_and_goes_after_a_while(store, data, tmp_path):
    content = data(3 * BLOCK)
    path = store.put("b/a", content)
    storage = store.storage(cache_dir=str(tmp_path), cache_bytes=10_000)
    storage.open(path).read(0, BLOCK)
    (block,) = blocks(tmp_path)
    old, new = (block.with_name(f"tmp{name:_>8}.tmp") for name in ("old", "new"))
    old.write_bytes(b"half a block")
    new.write_bytes(b"another one")
    os.utime(old, (0, 0))
    assert storage.open(path).read(0, 3 * BLOCK) == content
    assert not old.exists() and new.exists()


def test_a_full_disk_is_said_once_and_survived(store, data, tmp_path, monkeypatch, caplog):
    content = data(3 * BLOCK)
    file = store.storage(cache_dir=str(tmp_path)).open(store.put("b/a", content))

    def no_room(*args):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(caches.os, "rename", no_room)
    assert file.read(0, 3 * BLOCK) == content
    store.forget()
    assert b"".join(file.read(o, 10) for o in range(2000, 3000, 10)) == content[2000:]
    assert store.fetched() == []  # the last block is in memory
    assert len(caplog.messages) == 1 and "No space left" in caplog.text
    assert blocks(tmp_path) == []


def test_a_folder_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(UsageError, match="cannot be written"):
        Storage(cache_dir=str(tmp_path / "file")).local_path("memory://a/b")


KILLED_READER = """
    import sys
    from nlip_jax.data.storage import Storage, block_file
    block_file.BLOCK = 1000
    path, folder = sys.argv[1:]
    while True:
        file = Storage(cache_dir=folder, cache_bytes=30_000).open(path)
        for offset in range(0, 60_000, 500):
            file.read(offset, 500)
        print("round", flush=True)
"""


def test_readers_killed_at_any_moment_leave_nothing_wrong(data, tmp_path):
    content = data(60_000)
    (tmp_path / "a").write_bytes(content)
    path, folder = f"file://{tmp_path}/a", tmp_path / "cache"
    command = [sys.executable, "-c", textwrap.dedent(KILLED_READER), path, str(folder)]
    readers = [subprocess.Popen(command, stdout=subprocess.PIPE) for _ in range(2)]
    for reader in readers:
        assert reader.stdout.readline() == b"round\n"
        reader.send_signal(signal.SIGKILL)
        reader.communicate()
        file = Storage(cache_dir=str(folder), cache_bytes=30_000).open(path)
        assert file.read(0, 60_000) == content
    assert sum(block.stat().st_size for block in blocks(folder)) <= 30_000 + 3 * 2_000
