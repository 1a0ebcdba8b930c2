"""Tasks done by several processes, so that a stop leaves finished ones and nothing else."""

import multiprocessing
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from multiprocessing.sharedctypes import Synchronized
from typing import TypeVar

from nlip_jax.data.worker_process import die_with_parent
from nlip_jax.errors import RunError

Result = TypeVar("Result")
# (task, advance): `advance(count)` tells how much of the task is done since the last call.
Work = Callable[[int, Callable[[int], None]], Result]

_POLL = 0.5  # seconds between looks at the progress

_mine: tuple[Work, Synchronized]  # in a worker process: its work, the progress of all


def run_tasks(
    work: Work[Result],
    tasks: Sequence[int],
    *,
    processes: int,
    on_progress: Callable[[int], None],
    should_stop: Callable[[], bool],
) -> Iterator[tuple[int, Result]]:
    """Does tasks in worker processes.

    Args:
      work: does one; travels to each process once.
      tasks: their numbers.
      processes: how many; 0 works in this one.
      on_progress: called now and then with the sum of what `advance` was told.
      should_stop: no task is begun when it says so; those that were are finished.

    Yields:
      Each task that was done with its result, as soon as it is, in no particular order.

    Raises:
      RunError: a process was lost.
    """
    if processes == 0:
        yield from _run_here(work, tasks, on_progress, should_stop)
        return
    try:
        yield from _run_in_pool(work, tasks, processes, on_progress, should_stop)
    except BrokenProcessPool as error:
        raise RunError(
            "a worker process was lost: it may have run out of memory (use fewer --workers), or "
            "see its message above; run the same command again to go on"
        ) from error


def _run_in_pool(
    work: Work[Result],
    tasks: Sequence[int],
    processes: int,
    on_progress: Callable[[int], None],
    should_stop: Callable[[], bool],
) -> Iterator[tuple[int, Result]]:
    context = multiprocessing.get_context("spawn")
    progress = context.Value("q", 0)
    todo, running = list(reversed(tasks)), {}
    with ProcessPoolExecutor(
        min(processes, len(tasks)) or 1, context, initializer=_start, initargs=(work, progress)
    ) as pool:
        while True:
            while todo and len(running) < processes and not should_stop():
                task = todo.pop()
                running[pool.submit(_work, task)] = task
            if not running:
                return
            done, _ = wait(running, timeout=_POLL, return_when=FIRST_COMPLETED)
            on_progress(progress.value)
            for future in done:
                yield running.pop(future), future.result()


def _run_here(
    work: Work[Result],
    tasks: Sequence[int],
    on_progress: Callable[[int], None],
    should_stop: Callable[[], bool],
) -> Iterator[tuple[int, Result]]:
    total = 0

    def advance(count: int) -> None:
        nonlocal total
        total += count
        on_progress(total)

    for task in tasks:
        if should_stop():
            return
        yield task, work(task, advance)


def _start(work: Work, progress: Synchronized) -> None:
    global _mine  # noqa: PLW0603  a worker process has one piece of work in its life
    die_with_parent()
    _mine = work, progress


def _work(task: int) -> object:
    work, progress = _mine

    def advance(count: int) -> None:
        with progress.get_lock():
            progress.value += count

    return work(task, advance)
