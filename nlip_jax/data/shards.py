"""The tar files of a data set: naming them, and noticing when they change."""

import glob
import itertools
import logging
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass

from nlip_jax.errors import UsageError

INDEX_AGAIN = "run `python -m nlip_jax index` again"
_RANGE = re.compile(r"\{(\d+)\.\.(\d+)\}")


@dataclass(frozen=True)
class Shard:
    """A tar file as it was when it was indexed: path, bytes, modification time."""

    path: str
    size: int
    mtime_ns: int

    def check(self, status: os.stat_result) -> None:
        """Compares the file as it is now.

        Args:
          status: of the file at `path`.

        Raises:
          UsageError: its size or its modification time is another.
        """
        if (status.st_size, status.st_mtime_ns) == (self.size, self.mtime_ns):
            return
        what = "same size, another modification time"
        if status.st_size != self.size:
            what = f"size {self.size} -> {status.st_size}"
        raise UsageError(f"shard {self.path} changed since it was indexed ({what}): {INDEX_AGAIN}")


def expand_shards(patterns: str | Sequence[str]) -> list[str]:
    """Lists the shards that patterns name.

    Args:
      patterns: one or several paths with wildcards (*, ?, [...]) and ranges ({00000..00331}.tar).

    Returns:
      Existing files, each once, sorted by path.

    Raises:
      UsageError: a pattern names no file.
    """
    found = set()
    for pattern in [patterns] if isinstance(patterns, str) else patterns:
        names = {name: _files(name) for name in _spell_out(os.path.expanduser(pattern))}
        files = set(itertools.chain.from_iterable(names.values()))
        if not files:
            folder = os.path.isdir(os.path.expanduser(pattern))
            remedy = "add /*.tar to name the tars in this folder" if folder else "check the path"
            raise UsageError(f"no shard matches {pattern!r}: {remedy}")
        missing = [name for name, matches in names.items() if not matches]
        if missing:
            logging.getLogger(__name__).warning(
                f"{len(missing)} of {len(names)} shards of {pattern!r} do not exist: "
                f"{missing[0]}{' and others' if missing[1:] else ''}"
            )
        found |= files
    return sorted(found)


def _spell_out(pattern: str) -> list[str]:
    """Every name of a pattern with ranges; the width of the first bound is that of the numbers."""
    match = _RANGE.search(pattern)
    if match is None:
        return [pattern]
    first, last = match.groups()
    before, rest = pattern[: match.start()], _spell_out(pattern[match.end() :])
    return [
        f"{before}{number:0{len(first)}d}{after}"
        for number in range(int(first), int(last) + 1)
        for after in rest
    ]


def _files(pattern: str) -> list[str]:
    """An existing file of exactly this name, or those that match its wildcards."""
    names = [pattern] if os.path.exists(pattern) else glob.glob(pattern, recursive=True)
    return [name for name in names if os.path.isfile(name)]
