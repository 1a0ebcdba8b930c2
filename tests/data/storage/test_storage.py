import multiprocessing
import os
import pickle
from concurrent.futures import ThreadPoolExecutor

import fsspec
import pytest

from nlip_jax.data.storage import Status, Storage
from nlip_jax.errors import UsageError


def test_local_file(tmp_path):
    path = tmp_path / "a.tar"
    path.write_bytes(b"0123456789")
    file = Storage().open(str(path))
    assert file.read(2, 3) == b"234" and file.read(8, 100) == b"89" and file.read(20, 5) == b""
    status = os.stat(path)
    assert file.status == Storage().status(str(path)) == Status(10, status.st_mtime_ns)
    file.close()
    file.close()
    with pytest.raises(OSError, match="descriptor"):
        file.read(0, 1)
    assert Storage().local_path(str(path)) == str(path)


def test_local_glob_and_statuses(tmp_path):
    for name in ("b.tar", "a.tar", "c.txt", "[x].tar"):
        (tmp_path / name).write_bytes(b"x")
    (tmp_path / "d.tar").mkdir()
    found = Storage().glob(f"{tmp_path}/*.tar")
    assert [os.path.basename(p) for p in found] == ["[x].tar", "a.tar", "b.tar"]
    assert Storage().glob(f"{tmp_path}/[x].tar") == [f"{tmp_path}/[x].tar"]
    assert Storage().glob(f"{tmp_path}/none.tar") == []
    statuses = Storage().statuses([f"{tmp_path}/a.tar", f"{tmp_path}/none.tar"])
    assert statuses == [Storage().status(f"{tmp_path}/a.tar"), None]


@pytest.mark.parametrize("cached", [False, True])
def test_remote_reads_are_the_bytes(store, data, tmp_path, cached):
    content = data(9_000_000)
    path = store.put("bucket/a.tar", content)
    file = store.storage(cache_dir=str(tmp_path) if cached else "").open(path)
    assert file.status.size == len(content)
    for offset, length in [(0, 10), (5_000_000, 700_000), (4_194_300, 8), (8_999_990, 100)]:
        assert file.read(offset, length) == content[offset : offset + length]
        assert file.read(offset, length) == content[offset : offset + length]
    assert file.read(9_000_000, 5) == file.read(20_000_000, 5) == file.read(3, 0) == b""
    assert file.read(0, 10**9) == content
    file.close()
    file.close()


def test_an_empty_remote_file(store):
    assert store.storage().open(store.put("bucket/a", b"")).read(0, 10) == b""
    assert store.fetched() == []


@pytest.mark.parametrize("cached", [False, True])
def test_threads_share_a_remote_file(store, data, tmp_path, cached):
    content = data(6_000_000)
    path = store.put("bucket/a.tar", content)
    file = store.storage(cache_dir=str(tmp_path) if cached else "").open(path)
    places = [(i * 7_919_993 % 5_900_000, 40_000) for i in range(200)]
    with ThreadPoolExecutor(8) as pool:
        got = list(pool.map(lambda place: file.read(*place), places))
    assert got == [content[offset : offset + length] for offset, length in places]


def test_remote_status_tells_versions_apart(store):
    path = store.put("bucket/a.tar", b"one")
    storage = store.storage()
    first = storage.status(path)
    assert storage.status(path) == first and first.modified_ns > 0
    store.put("bucket/a.tar", b"two")
    second = storage.status(path)
    assert second.size == first.size and second.modified_ns != first.modified_ns


def test_remote_glob(store):
    for name in ("b/1.tar", "b/0.tar", "b/x/2.tar", "b/readme.txt"):
        store.put(name, b"x")
    storage = store.storage()
    assert storage.glob("flaky://b/*.tar") == ["flaky://b/0.tar", "flaky://b/1.tar"]
    assert storage.glob("flaky://b/**/*.tar")[-1] == "flaky://b/x/2.tar"
    assert storage.glob("flaky://b/0.tar") == ["flaky://b/0.tar"]
    assert storage.glob("flaky://b/9.tar") == storage.glob("flaky://b/x") == []


def test_statuses_of_many_files_are_one_listing(store):
    paths = [store.put(f"b/{i:02d}.tar", b"x" * (i + 1)) for i in range(30)]
    missing = ["flaky://b/99.tar", "flaky://none/0.tar"]
    storage = store.storage()
    one_by_one = [storage.status(path) for path in paths]
    store.forget()
    assert storage.statuses([*paths, *missing]) == [*one_by_one, None, None]
    assert store.asked("ls") == 1 and store.asked("info") == len(missing)


def test_statuses_where_no_listing_is_allowed(store):
    paths = [store.put(f"b/{i:02d}.tar", b"x" * (i + 1)) for i in range(10)]
    store.fail(PermissionError("no listing"))
    assert [s.size for s in store.storage().statuses(paths)] == list(range(1, 11))
    assert store.asked("info") == 10


def _size(storage: Storage, path: str) -> int:
    return storage.status(path).size


def test_travels_to_another_process(tmp_path):
    (tmp_path / "a").write_bytes(b"123")
    storage = Storage(cache_dir=str(tmp_path), cache_bytes=5, attempts=2)
    assert pickle.loads(pickle.dumps(storage)) == storage
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        assert pool.apply(_size, (storage, f"file://{tmp_path}/a")) == 3


def test_file_scheme_and_memory_scheme(tmp_path):
    (tmp_path / "a.tar").write_bytes(b"0123456789")
    path = f"file://{tmp_path}/a.tar"
    assert Storage().open(path).read(3, 2) == b"34"
    assert Storage().glob(f"file://{tmp_path}/*.tar") == [path]
    with fsspec.open("memory://m/a.tar", "wb") as file:
        file.write(b"abc")
    assert Storage().open("memory://m/a.tar").read(1, 5) == b"bc"
    assert Storage().glob("memory://m/*") == ["memory://m/a.tar"]


@pytest.mark.parametrize(
    ("path", "words"),
    [("nothing://a/b", ["nothing"]), ("absent://a/b", ["absent", "nlip_jax[remote]"])],
)
def test_no_file_system_for_a_scheme(path, words):
    fsspec.register_implementation("absent", "no_such_package.Fs", clobber=True)
    with pytest.raises(UsageError) as caught:
        Storage().open(path)
    assert all(word in str(caught.value) for word in words)


@pytest.mark.parametrize("fields", [{"attempts": 0}, {"cache_bytes": -1}, {"first_wait": -0.1}])
def test_numbers_out_of_range(fields):
    with pytest.raises(UsageError, match=f"{next(iter(fields))}={next(iter(fields.values()))}"):
        Storage(**fields)
