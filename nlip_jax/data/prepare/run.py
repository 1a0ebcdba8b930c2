"""`prepare` from beginning to end: count what the rules need, then write the shards."""

from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol

from nlip_jax import phases
from nlip_jax.data.prepare.census import CountTexts
from nlip_jax.data.prepare.plan import Folder
from nlip_jax.data.prepare.rules import RULES
from nlip_jax.data.prepare.shards import WriteShard, account
from nlip_jax.data.prepare.tasks import run_tasks
from nlip_jax.data.source import Source
from nlip_jax.errors import Preempted


class OnProgress(Protocol):
    """Shows how far a pass has come."""

    def __call__(self, stage: str, done: int, total: int) -> None:
        """`done` of `total` images; a stage begins with 0."""
        ...


def prepare(
    source: Source,
    folder: Folder,
    *,
    processes: int,
    on_progress: OnProgress,
    should_stop: Callable[[], bool],
) -> dict[str, Any]:
    """Writes a data set as ArrayRecord shards; goes on with what an earlier attempt finished.

    What is written depends on the source and the plan alone, not on processes or interruptions.

    Args:
      source: the data set; it keeps its captions.
      folder: claimed and locked.
      processes: that work; 0 works in this one.
      on_progress: called now and then.
      should_stop: whether to begin no further shard.

    Returns:
      The manifest: what the folder holds, and what became of every image and caption.

    Raises:
      Preempted: `should_stop` said so.
      RunError: a shard cannot be written, or a process was lost.
    """
    reports = folder.finished()
    todo = [number for number in range(folder.plan.num_shards) if number not in reports]
    tables = _count(source, folder, processes, on_progress, should_stop) if todo else {}
    total = source.num_images
    before = total * len(reports) // folder.plan.num_shards
    on_progress("writing", before, total)
    done = run_tasks(
        WriteShard(source, folder, tables),
        todo,
        processes=processes,
        on_progress=lambda images: on_progress("writing", before + images, total),
        should_stop=should_stop,
    )
    for number, report in done:
        phases.enter("prepare_named", number=number)
        folder.finish(number, report)
        phases.enter("prepare_finished", number=number)
        reports[number] = report
    if len(reports) < folder.plan.num_shards:
        raise _stopped(f"{len(reports)} of {folder.plan.num_shards} shards are written")
    manifest = _manifest([reports[number] for number in range(folder.plan.num_shards)], folder)
    folder.complete(manifest)
    return manifest


def _count(
    source: Source,
    folder: Folder,
    processes: int,
    on_progress: OnProgress,
    should_stop: Callable[[], bool],
) -> Mapping[str, Path]:
    """The first pass, where a rule needs one."""
    if not any(RULES[rule].needs_counts for rule in folder.plan.rules):
        return {}
    counts = folder.progress / "counts"
    counts.mkdir(exist_ok=True)
    work = CountTexts(source, folder.plan.rules, counts)
    total = source.num_images
    todo = work.todo()
    before = total - sum(work.parts[part].stop - work.parts[part].start for part in todo)
    on_progress("counting", before, total)
    for _ in run_tasks(
        work,
        todo,
        processes=processes,
        on_progress=lambda images: on_progress("counting", before + images, total),
        should_stop=should_stop,
    ):
        pass
    if work.todo():
        raise _stopped("texts are being counted")
    return work.tables()


def _stopped(how_far: str) -> Preempted:
    return Preempted(f"stopped as asked, {how_far}; run the same command again to go on")


def _manifest(reports: list[dict[str, Any]], folder: Folder) -> dict[str, Any]:
    totals = {}
    for what, of_images in (("images", True), ("captions", False)):
        counts = Counter()
        for report in reports:
            counts.update(report[what])
        del counts["seen"]
        totals[what] = account(counts, folder.plan.rules, of_images=of_images)
    return {**totals, "shards": reports}
