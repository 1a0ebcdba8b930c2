"""What `prepare` makes of a data set, and how far it has come: the folder that it writes into.

While it works, `.progress/` has the plan and a report of every finished shard, so that it can be
killed at any moment; at the end `manifest.json` has all of that, and `.progress/` is gone.
"""

import dataclasses
import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from nlip_jax import phases
from nlip_jax.data.prepare.rules import Limits
from nlip_jax.errors import UsageError
from nlip_jax.files import write_atomically

FORMAT = 1
MANIFEST = "manifest.json"
PROGRESS = ".progress"


@dataclasses.dataclass(frozen=True)
class Plan:
    """All that decides what is written.

    Attributes:
      fingerprint: of the source.
      num_images: in the source.
      num_examples: in the source.
      num_shards: to write.
      max_pixels: images with more count as unreadable.
      max_side: in pixels; images with a longer side are shrunk to it. 0: none are.
      rules: limits by name.
      format: of the records and of this description.
    """

    fingerprint: str
    num_images: int
    num_examples: int
    num_shards: int
    max_pixels: int
    max_side: int
    rules: Limits
    format: int = FORMAT

    def to_json(self) -> dict[str, Any]:
        """Plain values by name."""
        return {**dataclasses.asdict(self), "rules": dict(self.rules)}


@dataclasses.dataclass(frozen=True)
class Folder:
    """The folder that shards are written into, and its progress.

    Attributes:
      path: of the folder.
      plan: what is written.
    """

    path: Path
    plan: Plan

    @property
    def progress(self) -> Path:
        """Where everything unfinished lies."""
        return self.path / PROGRESS

    def shard(self, number: int) -> Path:
        """The file of a finished shard."""
        return self.path / f"pairs-{number:05d}-of-{self.plan.num_shards:05d}.array_record"

    def check(self) -> None:
        """Makes sure that the folder is new, or holds an attempt at the same plan.

        Raises:
          UsageError: it holds something else.
        """
        check_folder(self.path)
        wanted = self.plan.to_json()
        for found in filter(None, (self.manifest(), _read(self.progress / "plan.json"))):
            for name, value in found["plan"].items():
                if wanted.get(name) != value:
                    raise UsageError(
                        f"{self.path} holds another preparation: its {name} is {value!r}, now it "
                        f"is {wanted.get(name)!r}; choose another --output, or remove that one"
                    )

    def claim(self) -> None:
        """Begins, or goes on where an earlier attempt stopped; raises as `check` does."""
        self.check()
        self.progress.mkdir(parents=True, exist_ok=True)
        _write(self.progress / "plan.json", {"plan": self.plan.to_json()})

    def manifest(self) -> dict[str, Any] | None:
        """What was written, once all of it is."""
        return _read(self.path / MANIFEST)

    def finished(self) -> dict[int, dict[str, Any]]:
        """Reports of the shards that are there as they were written, by number."""
        manifest = self.manifest() or {"shards": []}
        reports = dict(enumerate(manifest["shards"]))
        for number in range(self.plan.num_shards):
            report = reports.get(number) or _read(self._report(number))
            if report is not None and _size(self.shard(number)) == report["bytes"]:
                reports[number] = report
            else:
                reports.pop(number, None)
        return reports

    def finish(self, number: int, report: Mapping[str, Any]) -> None:
        """Notes that a shard is written."""
        _write(self._report(number), report)

    def complete(self, manifest: Mapping[str, Any]) -> None:
        """Notes that everything is written."""
        _write(self.path / MANIFEST, {"plan": self.plan.to_json(), **manifest})
        phases.enter("prepare_complete")
        shutil.rmtree(self.progress)

    def _report(self, number: int) -> Path:
        return self.progress / f"shard-{number:05d}.json"


def check_folder(path: Path) -> None:
    """Makes sure that a folder is new, empty or of an earlier preparation.

    Raises:
      UsageError: it is not.
    """
    if path.exists() and not path.is_dir():
        raise UsageError(f"--output={path} is a file; name a folder")
    holds = sorted(found.name for found in path.iterdir()) if path.exists() else []
    if holds and not (path / PROGRESS).is_dir() and "plan" not in (_read(path / MANIFEST) or {}):
        raise UsageError(
            f"--output={path} is not empty and not of a preparation (it holds {holds[0]}); "
            "choose another"
        )


def _read(path: Path) -> dict[str, Any] | None:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None


def _write(path: Path, value: Mapping[str, Any]) -> None:
    write_atomically(path, (json.dumps(value, indent=1) + "\n").encode())


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else -1
