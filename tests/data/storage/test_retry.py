import errno
import logging

import pytest

from nlip_jax.data.storage import Storage


class HttpError(Exception):
    def __init__(self, code):
        super().__init__(f"status {code}")
        self.code = code


def test_a_failure_that_passes_is_waited_for(store, timeout, caplog):
    path = store.put("b/a", b"0123456789")
    file = store.storage(first_wait=1.0).open(path)
    store.fail(timeout, ConnectionResetError(), HttpError(503))
    with caplog.at_level(logging.WARNING):
        assert file.read(2, 3) == b"234"
    assert len(store.waits) == 3
    assert all(0.5 * w <= wait <= w for wait, w in zip(store.waits, (1, 2, 4), strict=True))
    (line,) = caplog.messages  # one for a file, however often it fails
    assert path in line and "slow today" in line
    store.fail(timeout)
    file.read(9, 1)
    assert len(caplog.messages) == 1


def test_waits_have_a_bound(store, timeout):
    path = store.put("b/a", b"x")
    store.fail(*[timeout] * 19)
    assert store.storage(attempts=20).status(path).size == 1
    assert max(store.waits) <= 30 and min(store.waits[7:]) >= 15


def test_the_last_failure_is_raised(store, timeout):
    path = store.put("b/a", b"x")
    store.fail(*[timeout] * 3)
    with pytest.raises(OSError, match="slow today, tried 3 times") as caught:
        store.storage(attempts=3).open(path)
    assert caught.value.filename == path and caught.value.strerror
    assert store.asked("info") == 3


def test_answers_that_are_cut_short_are_asked_for_again(store):
    file = store.storage().open(store.put("b/a", b"0123456789"))
    store.fail(2, 0)
    assert file.read(0, 10) == b"0123456789" and len(store.waits) == 2


@pytest.mark.parametrize(
    ("error", "kind", "code"),
    [
        (FileNotFoundError("/b/a"), FileNotFoundError, errno.ENOENT),
        (PermissionError("who are you"), PermissionError, errno.EACCES),
        (HttpError(404), FileNotFoundError, errno.ENOENT),
        (HttpError(403), PermissionError, errno.EACCES),
        (HttpError(416), OSError, errno.EIO),
        (TypeError("a bug"), TypeError, None),
    ],
)
def test_answers_are_not_asked_for_again(store, error, kind, code):
    path = store.put("b/a", b"x")
    store.fail(error)
    with pytest.raises(kind) as caught:
        store.storage().status(path)
    assert store.waits == [] and store.asked("info") == 1
    if code:
        assert caught.value.errno == code and caught.value.strerror
        assert caught.value.filename == path


def test_folders_are_no_files(store):
    store.put("b/x/a", b"x")
    with pytest.raises(IsADirectoryError):
        store.storage().open("flaky://b/x")
    with pytest.raises(FileNotFoundError):
        Storage().open("memory://nowhere/a")
