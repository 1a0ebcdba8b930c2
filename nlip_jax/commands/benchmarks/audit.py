"""The stages of an audit after embedding, on made-up rows: seconds and peak memory of each."""

import contextlib
import dataclasses
import os
import resource
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from nlip_jax.commands.auditing import show
from nlip_jax.commands.auditing.after import Embedded, Rules, finish
from nlip_jax.commands.auditing.kept import Limits
from nlip_jax.commands.auditing.missing import MissingConcepts
from nlip_jax.commands.auditing.reading import list_examples
from nlip_jax.commands.auditing.work import Progress, Work
from nlip_jax.commands.benchmarks.audit_rows import Rows, word
from nlip_jax.commands.benchmarks.mixture import two_modes
from nlip_jax.data.listing import Listing
from nlip_jax.data.members import Ranges
from nlip_jax.estimators import gaussian_mixture

_CONCEPTS, _TOP_K = 5000, 5
_LIST = "read captions"


def run(num_rows: int = 10_000_000) -> dict[str, float]:
    """Audits made-up rows with made-up losses and concepts of their images.

    Memory is the largest that was resident: of this process with Python and JAX in it, and of the
    worker processes that list captions, all of them together. The files lie in a folder of the
    system for temporary ones: some 300 bytes a row.

    Args:
        num_rows: how many.
    """
    with tempfile.TemporaryDirectory() as folder:
        return _run(num_rows, Path(folder))


def _run(num_rows: int, folder: Path) -> dict[str, float]:
    source, members = Rows(num_rows), Ranges(num_rows)
    work = _Watched()
    listing = Listing(folder / "listing", num_rows)
    with work.stage(_LIST) as progress:
        list_examples(listing, source, members, processes=os.cpu_count() or 1)
        progress.done = f"{num_rows:,} captions"
    numbers = np.lib.format.open_memmap(
        folder / "concepts.npy", "w+", np.int16, (num_rows, _TOP_K)
    )
    rng = np.random.default_rng(0)
    for start in range(0, num_rows, 1 << 20):
        part = numbers[start : start + (1 << 20)]
        part[:] = rng.integers(1, _CONCEPTS + 1, part.shape, np.int16)
    numbers.flush()
    made = time.monotonic()
    missing = MissingConcepts(
        tuple(map(word, range(_CONCEPTS))), np.load(folder / "concepts.npy", mmap_mode="r")
    )
    results = finish(
        Embedded(
            folder=folder,
            source=source,
            members=members,
            listing=listing,
            losses=two_modes(num_rows, 0),
            looked_at=num_rows,
            made_of=[],
            missing=missing,
        ),
        Rules(
            fit=gaussian_mixture.fit,
            posterior=gaussian_mixture.posterior,
            limits=Limits(keep_below=0.5, shard_noise=0.5),
            near=0.7,
            max_pixels=1 << 20,
        ),
        work=work,
        labels=lambda fitted: show.Labels(title="Audit of made-up rows", description=""),
    )
    listed = next(s for s in work.stages if s.name == _LIST).seconds
    numbers = {
        "audit/rows": float(num_rows),
        "audit/groups": float(results["audit/groups"]),
        "audit/near_identical_share": results["audit/near_identical_share"],
        "audit/seconds": time.monotonic() - made + listed,
        "audit/cpu_seconds": sum(usage.cpu for usage in work.usages.values()),
        "audit/peak_mb": max(usage.own_mb for usage in work.usages.values()),
        "audit/peak_mb_with_workers": work.usages[_LIST].own_mb + work.usages[_LIST].workers_mb,
    }
    for stage in work.stages:
        name, usage = stage.name.replace(" ", "_"), work.usages[stage.name]
        numbers |= {
            f"audit/{name}/seconds": stage.seconds,
            f"audit/{name}/cpu_seconds": usage.cpu,
            f"audit/{name}/peak_mb": usage.own_mb,
        }
    return numbers


@dataclasses.dataclass(frozen=True)
class _Usage:
    """What the system says of a stage.

    Attributes:
      cpu: seconds that processors worked, for this process and its workers.
      own_mb: largest resident memory of this process so far.
      workers_mb: that of its largest worker so far, for each of them.
    """

    cpu: float
    own_mb: float
    workers_mb: float


@dataclasses.dataclass(frozen=True)
class _Watched(Work):
    """Also takes down what each stage used."""

    usages: dict[str, _Usage] = dataclasses.field(default_factory=dict)

    @contextlib.contextmanager
    def stage(self, name: str) -> Iterator[Progress]:
        """A stage of `Work`."""
        before = _cpu_seconds()
        with super().stage(name) as progress:
            yield progress
        self.usages[name] = _Usage(
            cpu=_cpu_seconds() - before,
            own_mb=_peak_mb(resource.RUSAGE_SELF),
            workers_mb=_peak_mb(resource.RUSAGE_CHILDREN) * (os.cpu_count() or 1),
        )


def _cpu_seconds() -> float:
    used = map(resource.getrusage, (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(usage.ru_utime + usage.ru_stime for usage in used)


def _peak_mb(who: int) -> float:
    return resource.getrusage(who).ru_maxrss * (1 if sys.platform == "darwin" else 1024) / 1e6
