"""Data sets of a config."""

import dataclasses
import functools
from collections.abc import Callable, Iterator
from pathlib import Path

from ml_collections import ConfigDict

from nlip_jax.build.blocks import check_part, take_block, take_class_block
from nlip_jax.build.class_shards import CLASS_SHARDS
from nlip_jax.build.languages import by_language
from nlip_jax.build.names import lookup
from nlip_jax.data.formats.array_record import ArrayRecordFormat
from nlip_jax.data.formats.base import Format
from nlip_jax.data.formats.folder import FolderFormat
from nlip_jax.data.formats.labelled import LabelledFormat
from nlip_jax.data.formats.labelled_folder import LabelledFolderFormat
from nlip_jax.data.formats.lines import LinesFormat
from nlip_jax.data.formats.parquet import ParquetFormat
from nlip_jax.data.formats.table import TableFormat
from nlip_jax.data.formats.tar import TarFormat
from nlip_jax.data.index.index import Index
from nlip_jax.data.index.layout import is_index, read_meta
from nlip_jax.data.index.shards import expand_shards
from nlip_jax.data.index.update import update_index
from nlip_jax.data.source import Source
from nlip_jax.data.sources.indexed import IndexedSource
from nlip_jax.data.sources.mixture import Mixture
from nlip_jax.data.sources.planted import FirstImages, PlantedMismatch
from nlip_jax.data.sources.tfds import TfdsSource
from nlip_jax.data.storage import Storage
from nlip_jax.data.synthetic import SyntheticScenes
from nlip_jax.errors import UsageError
from nlip_jax.sharding import on_leader


@dataclasses.dataclass(frozen=True)
class IndexSpec:
    """What an index is made of.

    Attributes:
      shards: files that exist, in the order of their names.
      format: how they are read.
      storage: how they are reached.
    """

    shards: list[str]
    format: Format
    storage: Storage


def _names(text: str) -> tuple[str, ...]:
    """A list of names separated by commas."""
    return tuple(name.strip() for name in text.split(",") if name.strip())


FORMATS: dict[str, Callable[[ConfigDict], Format]] = {
    "tar": lambda spec: TarFormat(caption_keys=_names(spec.caption_key)),
    "array_record": lambda spec: ArrayRecordFormat(
        image_key=spec.image_key,
        caption_keys=_names(spec.caption_key),
        sample_key=spec.sample_key,
    ),
    "parquet": lambda spec: ParquetFormat(
        image_column=spec.image_column,
        caption_columns=_names(spec.caption_column),
        root=spec.root,
    ),
    "table": lambda spec: TableFormat(
        image_column=spec.image_column,
        caption_columns=_names(spec.caption_column),
        separator=spec.separator,
        root=spec.root,
    ),
    "folder": lambda spec: FolderFormat(
        root=spec.root, splits=tuple(spec.splits), language=spec.language
    ),
    "lines": lambda spec: LinesFormat(images=spec.images, root=spec.root),
    "labelled": lambda spec: LabelledFormat(template=spec.template, class_names=spec.class_names),
    "labelled_folder": lambda spec: LabelledFolderFormat(template=spec.template),
}


@dataclasses.dataclass(frozen=True)
class _Place:
    """Where a data set stands in the config, and where it may put an index.

    Attributes:
      field: dotted name of its spec.
      index: folder of its index where the config names none.
      storage: how files are reached.
    """

    field: str
    index: Path
    storage: Storage

    def part(self, name: str) -> "_Place":
        """The place of a part of a mixture."""
        return dataclasses.replace(
            self,
            field=f"{self.field}.mixture.{name}",
            index=self.index.with_name(f"{self.index.name}-{name}"),
        )


def _synthetic(spec: ConfigDict, place: _Place) -> Source:
    del place
    return SyntheticScenes(**spec)


def _indexed(spec: ConfigDict, place: _Place, *, name: str) -> Source:
    index_spec, directory = _index_spec(spec, place, name=name), _directory(spec, place)

    def index_once() -> None:  # asked on the leader alone, so that all processes agree
        if not is_index(directory):
            update_index(
                index_spec.shards, index_spec.format, directory, storage=index_spec.storage
            )

    if not spec.index:
        on_leader(index_once)
    index = Index.open(directory, storage=index_spec.storage)
    index.check(shards=index_spec.shards, format=index_spec.format)
    source = IndexedSource(
        index,
        index_spec.format,
        storage=index_spec.storage,
        captions=spec.captions,
        probabilities=tuple(spec.caption_probabilities),
    )
    return FirstImages(source, spec.num_images) if spec.num_images else source


def open_class_images(
    spec: ConfigDict, *, field: str, workdir: Path, name: str, storage: Storage
) -> IndexedSource:
    """Opens the images of a labelled set that is read through an index, all of them.

    Args:
      spec: has `source`, a key of `CLASS_SHARDS`, and the block of that name.
      field: dotted name of the spec in the config.
      workdir: of the run; an index goes there whose place the config does not name.
      name: of the set, for that.
      storage: how files are reached.

    Raises:
      UsageError: one of its files cannot be used, or is gone since it was indexed.
    """
    place = _Place(field, index_folder(workdir, name), storage)
    block = spec[spec.source]
    index_spec, directory = _index_spec(block, place, name=spec.source), _directory(block, place)

    def index_whole() -> None:  # again, as long as a file could not be used
        if not is_index(directory) or read_meta(directory).unreadable:
            update_index(index_spec.shards, index_spec.format, directory, storage=storage)

    if not block.index:
        on_leader(index_whole)
    index = Index.open(directory, storage=storage)
    if index.meta.unreadable:
        raise UsageError(next(iter(index.meta.unreadable.values())))
    index.check(shards=index_spec.shards, format=index_spec.format)
    source = IndexedSource(index, index_spec.format, storage=storage)
    if len(source.holes):
        raise UsageError(
            f"{len(source.holes)} files were removed from this set after it was indexed; remove "
            f"{directory} and index it anew"
        )
    return source


def _tfds(spec: ConfigDict, place: _Place) -> Source:
    if not spec.name:
        raise UsageError(f"config.{place.field}.tfds.name is empty: name a prepared data set")
    opened = []
    # One process counts the captions, and the others find the numbers on disk.
    on_leader(lambda: opened.append(TfdsSource(**spec, counts=place.index)))
    return opened[0] if opened else TfdsSource(**spec, counts=place.index)


def _mixture(spec: ConfigDict, place: _Place) -> Source:
    if not spec:
        raise UsageError(
            f"config.{place.field}.mixture has no parts: add some in the config file, as "
            "c.data.mixture.NAME = base.mixture_part(SOURCE, SPEC, weight=1.0)"
        )
    for name, part in spec.items():
        check_part(part, field=f"{place.field}.mixture.{name}")
    return Mixture(
        {name: (_open(part, place.part(name)), part.weight) for name, part in spec.items()}
    )


SOURCES: dict[str, Callable[[ConfigDict, _Place], Source]] = {
    "synthetic": _synthetic,
    **{name: functools.partial(_indexed, name=name) for name in FORMATS},
    "tfds": _tfds,
    "mixture": _mixture,
}


def make_storage(config: ConfigDict) -> Storage:
    """How files are reached."""
    return Storage(**config.data.storage)


def index_folder(workdir: Path, name: str) -> Path:
    """Where the index of a data set goes whose place the config does not name."""
    return workdir / "index" / name


def open_source(
    spec: ConfigDict, *, field: str, workdir: Path, name: str, storage: Storage
) -> Source:
    """Opens a data set.

    Args:
      spec: has `source`, a key of `SOURCES`, and the block of that name.
      field: dotted name of the spec in the config.
      workdir: of the run; an index goes there whose place the config does not name.
      name: of the data set, for that.
      storage: how files are reached.
    """
    return _open(spec, _Place(field, index_folder(workdir, name), storage))


def open_training_source(config: ConfigDict, workdir: Path) -> Source:
    """The examples of the run, with planted noise if asked for."""
    source = open_source(
        config.data, field="data", workdir=workdir, name="data", storage=make_storage(config)
    )
    if config.data.plant_mismatch:
        source = PlantedMismatch(source, config.data.plant_mismatch, config.seed)
    return source


def indexed_sets(config: ConfigDict, workdir: Path) -> dict[Path, IndexSpec]:
    """The sets of a config that are read through an index, by the folder of that."""
    lookup(config.data.source, SOURCES, field="data.source")
    storage = make_storage(config)
    specs = [(config.data, _Place("data", index_folder(workdir, "data"), storage))]
    for field, spec in _sets_in(config.evaluators, "evaluators"):
        folder = index_folder(workdir, field.removeprefix("evaluators.").replace(".", "-"))
        specs.append((spec, _Place(field, folder, storage)))
    found = {}
    for spec, place in specs:
        for block, where, name in _indexed_blocks(spec, place):
            directory, index_spec = _directory(block, where), _index_spec(block, where, name=name)
            if found.setdefault(directory, index_spec) != index_spec:
                raise UsageError(
                    f"config.{where.field}.{name}.index={block.index!r}: the index of another set "
                    "goes there; name a folder of its own"
                )
    return found


def _open(spec: ConfigDict, place: _Place) -> Source:
    make = lookup(spec.source, SOURCES, field=f"{place.field}.source")
    return make(take_block(spec, field=place.field), place)


def _sets_in(block: ConfigDict, field: str) -> Iterator[tuple[str, ConfigDict]]:
    """The sets of a block, by dotted name: what has a `source`, however deep it lies."""
    for name, inner in block.items():
        if isinstance(inner, ConfigDict):
            where = f"{field}.{name}"
            if inner.get("languages"):
                for language, spec in by_language(inner, field=where).items():
                    yield f"{where}.{language}", spec
            elif "source" in inner:
                yield where, inner
            else:
                yield from _sets_in(inner, where)


def _indexed_blocks(
    spec: ConfigDict, place: _Place
) -> Iterator[tuple[ConfigDict, _Place, str]]:
    """The blocks of a set that name shards: its own, or those of the parts of a mixture."""
    if spec.source in FORMATS:
        yield take_block(spec, field=place.field), place, spec.source
    elif spec.source in CLASS_SHARDS:
        yield take_class_block(spec, field=place.field), place, spec.source
    elif spec.source == "mixture":
        for name, part in take_block(spec, field=place.field).items():
            check_part(part, field=f"{place.field}.mixture.{name}")
            yield from _indexed_blocks(part, place.part(name))


def _directory(spec: ConfigDict, place: _Place) -> Path:
    return Path(spec.index).expanduser() if spec.index else place.index


def _index_spec(spec: ConfigDict, place: _Place, *, name: str) -> IndexSpec:
    if name in CLASS_SHARDS:
        try:
            shards, format = CLASS_SHARDS[name](spec, place.storage)
        except UsageError as error:
            raise UsageError(f"config.{place.field}.{name}: {error}") from error
        return IndexSpec(shards=shards, format=format, storage=place.storage)
    if not spec.shards:
        raise UsageError(
            f"config.{place.field}.{name}.shards is empty: name files, such as "
            f"--config.{place.field}.{name}.shards='data/train/*'"
        )
    format = FORMATS[name](spec)
    shards = expand_shards(
        spec.shards.split("::"), storage=place.storage, extensions=format.extensions
    )
    return IndexSpec(shards=shards, format=format, storage=place.storage)
