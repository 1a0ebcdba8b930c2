"""Asking a store again: which errors may pass, and how long to wait for it."""

import errno
import logging
import os
import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from nlip_jax.errors import RunError, UsageError

T = TypeVar("T")

_LOG = logging.getLogger(__name__)
_LONGEST_WAIT = 30.0  # seconds
# Answers, not failures: asking again gives the same one.
_DEFINITE = {
    FileNotFoundError: errno.ENOENT,
    PermissionError: errno.EACCES,
    IsADirectoryError: errno.EISDIR,
    NotADirectoryError: errno.ENOTDIR,
}
_HTTP_DEFINITE = {401: errno.EACCES, 403: errno.EACCES, 404: errno.ENOENT, 410: errno.ENOENT}
_HTTP_TRANSIENT = (408, 425, 429)  # of the 4xx: timeout, too early, too many requests

_told: set[str] = set()  # files whose first failure was logged by this process


@dataclass(frozen=True)
class Retry:
    """Repeats what fails for a while, with exponential back-off.

    Waits `first_wait`, then twice as long each time up to 30 s, shortened at random by up to a
    half, so that many readers do not come back at the same moment.

    Attributes:
      attempts: how often to try in all.
      first_wait: seconds.
      sleep: waits.
    """

    attempts: int
    first_wait: float
    sleep: Callable[[float], None] = time.sleep

    def call(self, function: Callable[[], T], *, path: str) -> T:
        """What the function returns.

        Args:
          function: asks the store.
          path: of the file it is about, for messages.

        Raises:
          OSError: with `strerror` and `filename`: the store said no, or failed every time.
        """
        for attempt in range(1, self.attempts + 1):
            try:
                return function()
            except (UsageError, RunError):
                raise
            except Exception as error:
                code = _definite(error)
                if code is not None:
                    raise OSError(code, os.strerror(code), path) from error
                if not _may_pass(error):
                    raise
                if attempt == self.attempts:
                    text = f"{_describe(error)}, tried {attempt} times"
                    raise OSError(errno.EIO, text, path) from error
                _tell(path, error)
                wait = min(self.first_wait * 2 ** (attempt - 1), _LONGEST_WAIT)
                self.sleep(wait * random.uniform(0.5, 1.0))
        raise AssertionError("attempts is at least 1")


def _definite(error: Exception) -> int | None:
    """The errno of an answer that will not change, None for a failure."""
    for kind, code in _DEFINITE.items():
        if isinstance(error, kind):
            return code
    status = _http_status(error)
    if 400 <= status < 500 and status not in _HTTP_TRANSIENT:
        return _HTTP_DEFINITE.get(status, errno.EIO)
    return None


def _may_pass(error: Exception) -> bool:
    """Whether it comes from the operating system or a client library, and is no bug."""
    return isinstance(error, OSError) or type(error).__module__ != "builtins"


def _http_status(error: Exception) -> int:
    """As aiohttp and gcsfs keep it; 0 if there is none."""
    for name in ("status", "code"):
        value = getattr(error, name, None)
        if isinstance(value, int):
            return value
    return 0


def _describe(error: Exception) -> str:
    text = " ".join(str(getattr(error, "strerror", None) or error).split())
    return text or type(error).__name__


def _tell(path: str, error: Exception) -> None:
    if path not in _told:
        _told.add(path)
        _LOG.warning("%s: %s; trying again", path, _describe(error))
