"""A data pipeline in a process of its own, and what its batches cost in CPU and wall time.

Between two measurements a pipeline comes to rest: its buffers are full and its workers wait. From
rest to rest it makes exactly the batches that were taken, so nothing made ahead is counted twice
or not at all, and pipelines can take turns on the same cores.

The process is started as `python -m MODULE '{"argument": ...}'` and serves numbers of batches on
its standard input (see `serve`); it may belong to another interpreter.
"""

import contextlib
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nlip_jax.errors import RunError, UsageError

PROC = Path("/proc")
_POLL_SECONDS = 0.05
_REST_POLLS = 5  # at rest: this many polls in a row ...
_REST_LOAD = 0.1  # ... with less than this share of a core busy
_END_SECONDS = 20
_TICKS = os.sysconf("SC_CLK_TCK")
_SESSION, _TIMES = 3, slice(11, 15)  # proc(5): of the fields behind the command's name


@dataclass(frozen=True)
class Cost:
    """Of some batches.

    Attributes:
      images: number made.
      cpu_seconds: of all processes together, until their buffers were full again.
      wall_seconds: until then.
    """

    images: int
    cpu_seconds: float
    wall_seconds: float


class Contender:
    """A running pipeline; made by `start`."""

    def __init__(self, process: subprocess.Popen, errors: Any, name: str) -> None:
        self._process, self._errors, self._name = process, errors, name

    def take(self, batches: int) -> Cost:
        """Takes some batches and waits until the pipeline rests again.

        Raises:
          RunError: it ended.
        """
        begun, cpu = time.perf_counter(), self._cpu_seconds()
        try:
            self._process.stdin.write(f"{batches}\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            self._fail()
        images = int(self.answer())
        ended = self._rest()
        return Cost(images, self._cpu_seconds() - cpu, ended - begun)

    def answer(self) -> str:
        """The next line the process writes."""
        line = self._process.stdout.readline()
        return line.strip() if line.endswith("\n") else self._fail()

    def memory_bytes(self) -> dict[int, int]:
        """Memory of every process by its id: its own and what it shares, but no mapped files."""
        found = {}
        for pid, _ in _members(self._process.pid):
            lines = (PROC / str(pid) / "status").read_text().splitlines()
            kilobytes = dict(line.split()[:2] for line in lines if line.startswith("Rss"))
            found[pid] = 1024 * (int(kilobytes["RssAnon:"]) + int(kilobytes["RssShmem:"]))
        return found

    def _rest(self) -> float:
        """Waits; returns when rest began."""
        samples = [(time.perf_counter(), self._cpu_seconds())]
        while True:
            time.sleep(_POLL_SECONDS)
            samples.append((time.perf_counter(), self._cpu_seconds()))
            if len(samples) > _REST_POLLS:
                (begun, before), (now, after) = samples[-_REST_POLLS - 1], samples[-1]
                if after - before < _REST_LOAD * (now - begun):
                    return begun

    def _cpu_seconds(self) -> float:
        """Of its processes, those that ended included."""
        return sum(ticks for _, ticks in _members(self._process.pid)) / _TICKS

    def _fail(self) -> str:
        self._process.wait()
        self._errors.seek(0)
        lines = self._errors.read().decode(errors="replace").strip().splitlines()
        raise RunError(f"{self._name} ended: {lines[-1] if lines else 'without a word'}")


@contextlib.contextmanager
def start(
    module: str, arguments: dict[str, Any], *, folder: Path, python: str = sys.executable
) -> Iterator[Contender]:
    """Starts a pipeline and waits until it rests; ends it on exit.

    Args:
      module: in nlip_jax; calls `serve` when run.
      arguments: JSON values.
      folder: a temporary one.
      python: interpreter that runs it; sees no packages of this one but nlip_jax.

    Raises:
      RunError: it ended.
    """
    if not PROC.is_dir():
        raise UsageError("this benchmark reads CPU times from /proc, which only Linux has")
    package = Path(__file__).resolve().parents[2]
    link = folder / "path" / package.name
    link.parent.mkdir(exist_ok=True)
    if not link.exists():
        link.symlink_to(package)
    with tempfile.TemporaryFile() as errors:
        process = subprocess.Popen(
            [python, "-m", module, json.dumps(arguments)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
            cwd=folder,
            env={**os.environ, "PYTHONPATH": str(link.parent)},
            start_new_session=True,  # by which its processes are found
        )
        try:
            contender = Contender(process, errors, module)
            contender.answer()
            contender.take(1)  # the first batch is when much of it starts
            yield contender
        finally:
            with contextlib.suppress(BrokenPipeError):
                process.stdin.close()  # the end of its input, upon which it ends
            try:
                process.wait(_END_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
            process.stdout.close()


def serve(batches: Iterator[Any]) -> None:
    """Answers every number on standard input with the images in as many batches."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what libraries print is no answer
    print("ready", file=answers, flush=True)
    for line in sys.stdin:
        images = sum(len(next(batches)) for _ in range(int(line)))
        print(images, file=answers, flush=True)


def _members(session: int) -> Iterator[tuple[int, int]]:
    """Process id and CPU ticks, with those of ended children, of every process of a session."""
    for path in PROC.glob("[0-9]*/stat"):
        try:
            fields = path.read_text().rpartition(")")[2].split()
        except (FileNotFoundError, ProcessLookupError):  # it ended meanwhile
            continue
        if int(fields[_SESSION]) == session:
            yield int(path.parent.name), sum(map(int, fields[_TIMES]))
