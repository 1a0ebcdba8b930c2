"""The folder of the captions of a data set: what they are made of, and what belongs there.

    made_of.json                   model, data and decoding; written first
    columns/concepts/0001          numbers from 1 of words in the run's concepts, 0 for none
    columns/synthetic_caption/0001 rows of tokens, by example
    captions.parquet               the same in words
    results.json                   last
"""

import dataclasses
import hashlib
import json
from pathlib import Path
from typing import Any

from nlip_jax.columns import ColumnVersion
from nlip_jax.commands.workdir import read_json
from nlip_jax.errors import UsageError
from nlip_jax.files import write_atomically
from nlip_jax.sharding import on_leader

_MARKER = "made_of.json"
_MADE_BEFORE = {"index", "compilation_cache", ".lock"}  # by this command, too


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Output:
    """The folder, for captions of one kind.

    Attributes:
      folder: where it is.
      made_of: plain values by name; other ones make other captions.
      made_for: what ids mean, as of `ColumnVersion`.
      split: how the work is shared out, which fragments depend on beside.
    """

    folder: Path
    made_of: dict[str, Any]
    made_for: dict[str, Any]
    split: tuple[int, ...]

    @property
    def table(self) -> Path:
        """The captions in words."""
        return self.folder / "captions.parquet"

    @property
    def results(self) -> Path:
        """Numbers; there when all is done."""
        return self.folder / "results.json"

    def column(self, name: str) -> ColumnVersion:
        """One of the columns."""
        text = json.dumps([self.made_of, self.split], sort_keys=True)
        return ColumnVersion(
            directory=self.folder / "columns" / name / "0001",
            key=hashlib.sha256(text.encode()).hexdigest()[:16],
            made_for=self.made_for,
        )

    def claim(self) -> None:
        """Writes what the captions are made of, or makes sure that those there are of the same.

        Raises:
          UsageError: they are not.
        """
        on_leader(self._claim)

    def _claim(self) -> None:
        path = self.folder / _MARKER
        before = read_json(path)
        now = json.loads(json.dumps(self.made_of))
        if not before:
            write_atomically(path, (json.dumps(self.made_of, indent=2) + "\n").encode())
            return
        for name in now:
            if before.get(name) != now[name]:
                raise UsageError(
                    f"{self.folder} holds captions with {name}={before.get(name)!r}, now it is "
                    f"{now[name]!r}: set it back to go on with those, or choose another --output"
                )


def check_place(folder: Path) -> None:
    """Refuses a folder with other things in it, before anything is put there.

    Raises:
      UsageError: it is not empty and not of captions.
    """
    found = {path.name for path in folder.iterdir()} if folder.is_dir() else set()
    others = {name for name in found if not name.endswith(".tmp")} - _MADE_BEFORE
    if others and _MARKER not in found:
        raise UsageError(
            f"--output={folder} is not empty and not of captions (it holds {sorted(others)[0]}); "
            "choose another folder"
        )
