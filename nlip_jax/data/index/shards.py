"""The shards of a data set: naming them, and noticing gaps and changes."""

import glob
import itertools
import logging
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass

from nlip_jax.data.storage import Status, Storage
from nlip_jax.data.storage.remote import is_remote
from nlip_jax.errors import UsageError

_LOG = logging.getLogger(__name__)
_RANGE = re.compile(r"\{(\d+)\.\.(\d+)\}")
_DIGITS = re.compile(r"\d+")
_OF = re.compile(r"-of-(\d+)")
_MOST_SHARDS = 1_000_000  # that a name may announce and be believed


@dataclass(frozen=True, slots=True)
class Shard:
    """A file as it was when it was indexed.

    Attributes:
      path: absolute, or with a scheme.
      size: in bytes.
      modified_ns: see `Status`.
      content: hexadecimal; the same for copies under the same name.
      removed: whether it was gone when the index was last updated; its images are holes then.
      counts: by the names in `COUNTS`, without zeros.
    """

    path: str
    size: int
    modified_ns: int
    content: str
    removed: bool
    counts: dict[str, int]

    @property
    def num_images(self) -> int:
        """Images with captions in it."""
        return self.counts.get("images", 0)

    @property
    def num_captions(self) -> int:
        """Captions of them."""
        return self.counts.get("captions", 0)

    def change(self, status: Status) -> str:
        """How the file differs from what was indexed; empty if it does not."""
        if status.size != self.size:
            return f"size {self.size} -> {status.size}"
        if status.modified_ns != self.modified_ns:
            return "same size, another modification time or version"
        return ""


def full_path(path: str) -> str:
    """The one name of a file: absolute, or with a scheme."""
    return path if is_remote(path) else os.path.abspath(path)


def expand_shards(
    patterns: str | Sequence[str], *, storage: Storage, extensions: Sequence[str] = ("tar",)
) -> list[str]:
    """Lists the shards that patterns name.

    Args:
      patterns: one or several paths with wildcards (*, ?, [...]) and ranges ({00000..00331}.tar).
      storage: where they are looked up.
      extensions: that shards usually have, for messages.

    Returns:
      Existing files, each once, sorted by path.

    Raises:
      UsageError: a pattern names no file.
    """
    found = set()
    for pattern in [patterns] if isinstance(patterns, str) else patterns:
        home = os.path.expanduser(pattern)
        names = _spell_out(home)
        if len(names) == 1 or glob.has_magic(home):
            matches = {name: storage.glob(name) for name in names}
        else:  # one look at the folder tells of all of them
            listed = set(storage.glob(_RANGE.sub("*", home)))
            matches = {name: [name] if name in listed else [] for name in names}
        files = set(itertools.chain.from_iterable(matches.values()))
        if not files:
            example = f"/*.{extensions[0]}"
            remedy = f"add {example}" if os.path.isdir(home) else "check the path"
            raise UsageError(f"no shard matches {pattern!r}: {remedy}")
        missing = [name for name, some in matches.items() if not some]
        if missing:
            others = " and others" if missing[1:] else ""
            _LOG.warning(
                "%d of %d shards of %r do not exist: %s%s",
                *(len(missing), len(names), pattern, missing[0], others),
            )
        found |= files
    return sorted(found)


def missing_numbers(paths: Sequence[str]) -> list[str]:
    """Names that are missing in numbered sequences of shards.

    In 00000.tar, 00001.tar, 00003.tar it is 00002.tar; "-of-00064" tells how many there must be.
    Elsewhere, numbers of which more are missing than there are, such as dates, are no sequence.
    """
    sequences: dict[tuple[str, str, int], set[int]] = {}
    for path in paths:
        start = path.rfind("/") + 1
        for digits in _DIGITS.finditer(path, start):
            around = (path[: digits.start()], path[digits.end() :], len(digits[0]))
            sequences.setdefault(around, set()).add(int(digits[0]))
    missing = set()
    for (before, after, width), numbers in sequences.items():
        total = _OF.match(after)
        whole = range(int(total[1])) if total else range(min(numbers), max(numbers) + 1)
        if len(whole) <= (_MOST_SHARDS if total else 2 * len(numbers)):
            gaps = set(whole) - numbers
            missing |= {f"{before}{number:0{width}d}{after}" for number in gaps}
    return sorted(missing)


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
