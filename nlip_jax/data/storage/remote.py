"""Files in object stores and on servers, through fsspec.

The file system of a path is asked for at each request: fsspec keeps one for each process and
makes a new one after a fork, so nothing open travels from a process to another.
"""

import datetime
import hashlib
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from nlip_jax.data.storage.files import Status
from nlip_jax.data.storage.retry import Retry
from nlip_jax.errors import UsageError

# What tells versions of an object apart, the best first, as the file systems name it.
_VERSIONS = ("generation", "ETag", "etag", "mtime", "LastModified", "last_modified", "created")
_WORTH_LISTING = 8  # files of one folder; for fewer of them each is asked for


def is_remote(path: str) -> bool:
    """Whether a path has a scheme, such as gs://bucket/name."""
    return "://" in path


@dataclass(frozen=True)
class Remote:
    """The requests that are made of a store.

    Attributes:
      retry: what to do when one fails.
    """

    retry: Retry

    def fetch(self, path: str, start: int, stop: int) -> bytes:
        """The bytes [start, stop), which must lie in the file.

        Raises:
          OSError: they do not come.
        """

        def once() -> bytes:
            system, name = _file_system(path)
            data = system.cat_file(name, start=start, end=stop)
            if len(data) != stop - start:
                raise OSError(f"{len(data)} bytes came instead of {stop - start}")
            return data

        return self.retry.call(once, path=path)

    def status(self, path: str) -> Status:
        """Size and version of a file.

        Raises:
          OSError: it is not there, or its store does not tell its size.
        """

        def once() -> Status:
            system, name = _file_system(path)
            info = system.info(name)
            if info["type"] == "directory":
                raise IsADirectoryError(path)
            if info.get("size") is None:
                raise OSError("its size is not told, so no part of it can be asked for")
            return _status(info)

        return self.retry.call(once, path=path)

    def statuses(self, paths: Sequence[str]) -> list[Status | None]:
        """Size and version of many files, None for those that are not there.

        Where many are asked for in one folder it is listed, which takes a request for every
        thousand files instead of one for each.
        """
        folders = defaultdict(list)
        for path in paths:
            folders[_parent(path)].append(path)
        listed = {}
        for folder, files in folders.items():
            if len(files) >= _WORTH_LISTING:
                listed |= self._list(folder)
        return [listed.get(path) or self._status_or_none(path) for path in paths]

    def glob(self, pattern: str) -> list[str]:
        """Existing files of a name or a pattern with wildcards, sorted."""
        if self._status_or_none(pattern) is not None:
            return [pattern]

        def once() -> dict[str, dict[str, Any]]:
            system, name = _file_system(pattern)
            return system.glob(name, detail=True)

        found = self.retry.call(once, path=pattern) if any(c in pattern for c in "*?[") else {}
        return sorted(
            _with_scheme(name, like=pattern)
            for name, info in found.items()
            if info["type"] == "file"
        )

    def _status_or_none(self, path: str) -> Status | None:
        try:
            return self.status(path)
        except (FileNotFoundError, IsADirectoryError):
            return None

    def _list(self, folder: str) -> dict[str, Status]:
        """The files of a folder whose sizes a listing gives; not every store can list."""

        def once() -> Iterable[dict[str, Any]]:
            system, name = _file_system(folder)
            return system.ls(name, detail=True)

        try:
            infos = self.retry.call(once, path=folder)
        except (OSError, NotImplementedError):
            return {}  # the files are asked for one by one, and whatever is wrong is met there
        return {
            _with_scheme(info["name"], like=folder): _status(info)
            for info in infos
            if info["type"] == "file" and info.get("size") is not None
        }


def _file_system(path: str) -> tuple[Any, str]:
    """The fsspec file system of a path, without memory of earlier answers, and its name there.

    Raises:
      UsageError: there is none for its scheme, or its package is not installed.
    """
    try:
        import fsspec.core  # noqa: PLC0415  those who only read local files do without

        system, name = fsspec.core.url_to_fs(path)
    except ImportError as error:
        raise UsageError(f"{path}: {error}; pip install 'nlip_jax[remote]' does") from error
    except ValueError as error:
        raise UsageError(f"{path}: {error}") from error
    system.invalidate_cache()
    return system, name


def _status(info: Mapping[str, Any]) -> Status:
    version = next((info[name] for name in _VERSIONS if info.get(name)), None)
    if version is None:
        return Status(info["size"], 0)
    if isinstance(version, datetime.datetime):
        version = version.timestamp()
    digest = hashlib.blake2b(str(version).encode(), digest_size=8).digest()
    return Status(info["size"], int.from_bytes(digest, "big") >> 1)


def _parent(path: str) -> str:
    return path.rpartition("/")[0]


def _with_scheme(name: str, *, like: str) -> str:
    """A name as file systems give it, spelled as the path that was asked for."""
    if is_remote(name):  # web servers keep it
        return name
    scheme, _, rest = like.partition("://")
    return f"{scheme}://{'/' if rest.startswith('/') else ''}{name.lstrip('/')}"
