"""What every worker process of the data plane does first."""

import ctypes
import multiprocessing
import os
import signal
import sys
import threading
import time

_PR_SET_PDEATHSIG = 1  # linux/prctl.h
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # malloc.h of glibc
_KEPT_BYTES, _LARGEST_KEPT = 1 << 27, 1 << 25
_POLL_SECONDS = 1.0


def die_with_parent() -> None:
    """Makes this worker end when its parent ends, however that ends, and not on Ctrl-C.

    The parent decides what an interrupt means: it stops its workers or lets them finish. A parent
    killed by SIGKILL decides nothing, so on Linux the kernel tells the worker and elsewhere a
    thread looks once a second. To be called in the main thread of a process that
    `multiprocessing` started directly ("spawn" or "fork", not "forkserver").
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = multiprocessing.parent_process().pid
    if sys.platform == "linux":
        # The kernel also signals when only the *thread* that started this process ends. Hence no
        # SIGKILL but a handler that looks whether the process is gone; the order stays in force.
        signal.signal(signal.SIGUSR2, lambda *_: _exit_if_orphaned(parent))
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGUSR2)
        _exit_if_orphaned(parent)  # it may have ended before the order reached the kernel
    else:
        threading.Thread(target=_watch, args=(parent,), daemon=True).start()


def keep_freed_memory() -> None:
    """Makes glibc reuse freed blocks of some MB, such as those of images.

    By itself it returns them to the kernel, which clears every page when the next image asks for
    it: an eighth of the time of decoding. Elsewhere this does nothing.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if sys.platform == "linux" and mallopt is not None:
        mallopt(_M_MMAP_THRESHOLD, _LARGEST_KEPT)
        mallopt(_M_TRIM_THRESHOLD, _KEPT_BYTES)


def _exit_if_orphaned(parent: int) -> None:
    if os.getppid() != parent:
        os._exit(1)


def _watch(parent: int) -> None:
    while True:
        _exit_if_orphaned(parent)
        time.sleep(_POLL_SECONDS)
