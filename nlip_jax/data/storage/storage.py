"""Where files are reached: on this machine, or through fsspec in stores and on servers."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from nlip_jax.data.storage.block_file import BlockFile
from nlip_jax.data.storage.cache import open_cache
from nlip_jax.data.storage.files import File, Status
from nlip_jax.data.storage.local import LocalFile, local_glob, local_status
from nlip_jax.data.storage.read_ahead import ReadAheadFile
from nlip_jax.data.storage.remote import Remote, is_remote
from nlip_jax.data.storage.retry import Retry
from nlip_jax.data.storage.whole_copy import copy_here
from nlip_jax.errors import UsageError


@dataclass(frozen=True)
class Storage:
    """How files are reached; picklable, holds nothing open.

    A path with a scheme (gs://, s3://, https://, memory://, ...) is fsspec's; any other is local.

    Attributes:
      cache_dir: folder for blocks and copies of remote files; empty: none are kept on disk.
      cache_bytes: bound of that folder; 0: no bound. Under a shuffled order it should hold the
        whole data set: a block is fetched for the sake of one example.
      attempts: how often a request to a remote store is made before it counts as failed.
      first_wait: seconds before the second one; doubles each time.
      sleep: waits; tests hand in their own.

    Raises:
      UsageError: a number is out of its range.
    """

    cache_dir: str = ""
    cache_bytes: int = 0
    attempts: int = 5
    first_wait: float = 0.5
    sleep: Callable[[float], None] = field(default=time.sleep, repr=False, compare=False)

    def __post_init__(self) -> None:
        if self.cache_bytes < 0 or self.attempts < 1 or self.first_wait < 0:
            raise UsageError(
                f"cache_bytes={self.cache_bytes}, attempts={self.attempts}, "
                f"first_wait={self.first_wait}: need 0 or more, 1 or more, 0 or more"
            )

    def open(self, path: str) -> File:
        """Opens a file for reading at random.

        Raises:
          OSError: it is not there or cannot be read.
          UsageError: no file system for its scheme is installed.
        """
        if not is_remote(path):
            return LocalFile(path)
        status = self._remote.status(path)
        if not self.cache_dir:
            return ReadAheadFile(path, status, self._remote)
        cache = open_cache(self.cache_dir, self.cache_bytes)
        return BlockFile(path, status, self._remote, cache)

    def status(self, path: str) -> Status:
        """Size and version.

        Raises:
          OSError: it is not there.
        """
        return self._remote.status(path) if is_remote(path) else local_status(path)

    def statuses(self, paths: Sequence[str]) -> list[Status | None]:
        """Size and version of many files, None for those that are not there.

        Much faster than asking for each where they are remote.

        Raises:
          OSError: a store does not answer.
        """
        far = [path for path in paths if is_remote(path)]
        found = dict(zip(far, self._remote.statuses(far), strict=True))
        return [found[path] if is_remote(path) else _status_or_none(path) for path in paths]

    def glob(self, pattern: str) -> list[str]:
        """Existing files of a name or a pattern with wildcards, sorted."""
        return self._remote.glob(pattern) if is_remote(pattern) else local_glob(pattern)

    def local_path(self, path: str) -> str:
        """A path that libraries which only read local files can open: the file or a copy of it.

        A copy may be removed when others need its place; whoever has it open can still read it.

        Raises:
          UsageError: the file is remote, and there is no `cache_dir` or it is too small.
          OSError: it cannot be copied.
        """
        if not is_remote(path):
            return path
        if not self.cache_dir:
            raise UsageError(
                f"{path} can only be read from a local copy: name a folder for it with "
                "data.storage.cache_dir, or copy it yourself"
            )
        cache = open_cache(self.cache_dir, self.cache_bytes)
        return copy_here(path, self._remote.status(path), self._remote, cache)

    @property
    def _remote(self) -> Remote:
        return Remote(Retry(self.attempts, self.first_wait, self.sleep))


def _status_or_none(path: str) -> Status | None:
    try:
        return local_status(path)
    except OSError:
        return None
