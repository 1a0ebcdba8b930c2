"""A store in memory that fails on demand and counts what it is asked."""

import errno
from dataclasses import dataclass, field

import numpy as np
import pytest

from nlip_jax.data.storage import Storage, retry

fsspec = pytest.importorskip("fsspec")
from fsspec.implementations.memory import MemoryFileSystem  # noqa: E402


class FlakyFileSystem(MemoryFileSystem):
    """Does to each request what is next in `failures`: raises an error, cuts to so many bytes."""

    protocol = "flaky"
    store = {}  # noqa: RUF012  as its parent has it
    pseudo_dirs = [""]  # noqa: RUF012
    failures = []  # noqa: RUF012
    requests = []  # noqa: RUF012  (what, path, start, stop)

    @classmethod
    def _strip_protocol(cls, path):
        return MemoryFileSystem._strip_protocol(path.replace("flaky://", "memory://"))

    def _ask(self, *request) -> int | None:
        self.requests.append(request)
        failure = self.failures.pop(0) if self.failures else None
        if isinstance(failure, Exception):
            raise failure
        return failure

    def cat_file(self, path, start=None, end=None, **options):
        cut = self._ask("cat", path, start, end)
        return super().cat_file(path, start=start, end=end, **options)[:cut]

    def info(self, path, **options):
        self._ask("info", path)
        return super().info(path, **options)

    def ls(self, path, detail=True, **options):
        self._ask("ls", path)
        return super().ls(path, detail=detail, **options)


@dataclass
class Store:
    """What a test does to the store behind flaky:// and sees of it."""

    waits: list[float] = field(default_factory=list)

    def put(self, name: str, data: bytes) -> str:
        FlakyFileSystem().pipe_file(f"/{name}", data)
        return f"flaky://{name}"

    def fail(self, *errors) -> None:
        """What the next requests meet; None lets one through."""
        FlakyFileSystem.failures.extend(errors)

    def fetched(self) -> list[tuple[int, int]]:
        return [tuple(r[2:]) for r in FlakyFileSystem.requests if r[0] == "cat"]

    def asked(self, what: str) -> int:
        return sum(r[0] == what for r in FlakyFileSystem.requests)

    def forget(self) -> None:
        FlakyFileSystem.requests.clear()

    def storage(self, **fields) -> Storage:
        return Storage(sleep=self.waits.append, **fields)


@pytest.fixture
def store(monkeypatch) -> Store:
    fsspec.register_implementation("flaky", FlakyFileSystem, clobber=True)
    for name in ("store", "failures", "requests"):
        getattr(FlakyFileSystem, name).clear()
    monkeypatch.setattr(retry, "_told", set())
    return Store()


@pytest.fixture
def timeout() -> OSError:
    return OSError(errno.ETIMEDOUT, "the store is slow today")


@pytest.fixture
def data():
    """Random bytes of a size."""
    return np.random.default_rng(0).bytes
