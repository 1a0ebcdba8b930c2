"""What the makers of evaluators are handed."""

import dataclasses
from pathlib import Path

from ml_collections import ConfigDict

from nlip_jax.build.sources import open_source
from nlip_jax.data.source import Source
from nlip_jax.data.storage import Storage
from nlip_jax.errors import UsageError


@dataclasses.dataclass(frozen=True, kw_only=True)
class Opening:
    """Where a set stands in the config, and how its files are opened.

    Attributes:
      field: dotted name of its spec, such as "evaluators.zero_shot.cifar10".
      workdir: of the run; an index goes there whose place the config does not name.
      storage: how files are reached.
      similarity: of the model that is evaluated, a key of `SIMILARITIES`.
      can_caption: whether that model makes captions (`Towers.caption`).
    """

    field: str
    workdir: Path
    storage: Storage
    similarity: str
    can_caption: bool = False

    @property
    def name(self) -> str:
        """Of the set in files: "zero_shot-cifar10"."""
        return self.field.removeprefix("evaluators.").replace(".", "-")

    def part(self, name: str) -> "Opening":
        """The place of a set inside of a spec, such as "train"."""
        return dataclasses.replace(self, field=f"{self.field}.{name}")

    def open_source(self, spec: ConfigDict) -> Source:
        """Opens images with captions, whole.

        Args:
          spec: has `source`, a key of `SOURCES`, and the block of that name.

        Raises:
          UsageError: it cannot be used, shows one caption of several, or shards were removed.
        """
        try:
            source = open_source(
                spec, field=self.field, workdir=self.workdir, name=self.name, storage=self.storage
            )
        except UsageError as error:
            where = "" if self.field in str(error) else f"config.{self.field}: "
            raise UsageError(f"{where}{error}") from error
        if source.draws_captions:
            raise UsageError(
                f"config.{self.field}: all captions of an image count in an evaluation, and this "
                "set draws one of them: set captions='expand' of the source"
            )
        if len(source.holes):
            raise UsageError(
                f"config.{self.field}: {len(source.holes)} shards were removed from this set after "
                "it was indexed; an evaluation set is used whole: index it anew in another folder"
            )
        if not len(source):
            raise UsageError(f"config.{self.field}: this set is empty; look at its files")
        return source
