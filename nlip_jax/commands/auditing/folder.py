"""The folder of an audit: whose it is, and what is kept in it."""

import dataclasses
import hashlib
import json
from pathlib import Path
from typing import Any

from nlip_jax.columns import ColumnVersion
from nlip_jax.commands.workdir import read_json
from nlip_jax.data.listing import Listing
from nlip_jax.data.source import Source
from nlip_jax.errors import UsageError
from nlip_jax.files import write_atomically

_MADE_BEFORE = {"index", ".lock"}  # by an audit that was cut short before it marked the folder
_MARK = "audit.json"


def check_folder(path: Path) -> None:
    """Refuses a folder of others, which is left as it is.

    Raises:
      UsageError: it is a file, or holds something and is no audit's.
    """
    if path.exists() and not path.is_dir():
        raise UsageError(f"--workdir={path} is a file; name a folder")
    if not path.exists() or (path / _MARK).exists():
        return
    others = {found.name for found in path.iterdir()} - _MADE_BEFORE
    if others:
        raise UsageError(
            f"{path} is not empty and not of an audit (it holds {sorted(others)[0]}); choose "
            "another --workdir"
        )


@dataclasses.dataclass(frozen=True, kw_only=True)
class Folder:
    """Where an audit works.

    Attributes:
      path: of it.
      source: that is audited.
      made_of: plain values by name: what another audit differs in.
    """

    path: Path
    source: Source
    made_of: dict[str, Any]

    def claim(self) -> None:
        """Marks the folder as this audit's.

        Raises:
          UsageError: it is another one's.
        """
        mark = self.path / _MARK
        if not mark.exists():
            write_atomically(mark, (json.dumps(self.made_of, indent=2) + "\n").encode())
            return
        before = read_json(mark)
        for name, now in self.made_of.items():
            if before.get(name) != now:
                raise UsageError(
                    f"{self.path} holds an audit with {name} {before.get(name)!r}, now it is "
                    f"{now!r}: choose another --workdir, or bring that back to go on"
                )

    @property
    def listing(self) -> Listing:
        """Captions and names of the examples."""
        return Listing(self.path / "listing", len(self.source))

    @property
    def model(self) -> Path:
        """Of the run of a model that was trained here."""
        return self.path / "model"

    def columns(self, *names: str, made_of: list) -> dict[str, ColumnVersion]:
        """Columns that results are kept in.

        Args:
          *names: of them.
          made_of: plain values that the results depend on.
        """
        key = hashlib.sha256(json.dumps([self.made_of, made_of]).encode()).hexdigest()[:16]
        made_for = dataclasses.asdict(self.source.numberings[-1])
        return {
            name: ColumnVersion(
                directory=self.path / "columns" / name / "0001", key=key, made_for=made_for
            )
            for name in names
        }
