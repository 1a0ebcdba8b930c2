"""Data sets, transforms and tokenizers of a config."""

import hashlib
import json
from pathlib import Path

from ml_collections import ConfigDict

from nlip_jax.build.names import lookup
from nlip_jax.data.index import Index, build_index
from nlip_jax.data.loading import RESIZE, ImageTransform
from nlip_jax.data.pipeline import Reading
from nlip_jax.data.planted import FirstImages, PlantedMismatch
from nlip_jax.data.shards import expand_shards
from nlip_jax.data.source import Source
from nlip_jax.data.synthetic import SyntheticScenes
from nlip_jax.data.tar_source import TarSource
from nlip_jax.data.tokenizer import Tokenizer, train_tokenizer
from nlip_jax.errors import UsageError
from nlip_jax.files import write_atomically
from nlip_jax.sharding import on_leader


def _synthetic(spec: ConfigDict, *, index: Path) -> Source:
    del index
    return SyntheticScenes(**spec)


def _tar(spec: ConfigDict, *, index: Path) -> Source:
    if not spec.shards:
        raise UsageError(
            "tar.shards is empty: name the shards, such as "
            "--config.data.tar.shards='data/train/*.tar'"
        )
    directory = Path(spec.index).expanduser() if spec.index else index
    shards = expand_shards(spec.shards)

    def index_once() -> None:  # asked on the leader alone, so that all processes agree
        if not directory.exists():
            build_index(shards, spec.caption_key, directory)

    if not spec.index:
        on_leader(index_once)
    opened = Index.open(directory)
    opened.check(shards=shards, caption_key=spec.caption_key)
    source = TarSource(opened, captions=spec.captions, seed=0)
    return FirstImages(source, spec.num_images) if spec.num_images else source


SOURCES = {"synthetic": _synthetic, "tar": _tar}


def index_folder(workdir: Path, name: str) -> Path:
    """Where the index of a data set goes whose place the config does not name."""
    return workdir / "index" / name


def open_source(spec: ConfigDict, *, field: str, index: Path) -> Source:
    """Opens a data set.

    Args:
      spec: has `source`, a key of `SOURCES`, and the block of that name.
      field: dotted name of the spec in the config.
      index: where an index goes whose place the config does not name.
    """
    make = lookup(spec.source, SOURCES, field=f"{field}.source")
    if spec.source not in spec:
        raise UsageError(f"config.{field}.source={spec.source!r} needs a block of that name")
    return make(spec[spec.source], index=index)


def open_training_source(config: ConfigDict, workdir: Path) -> Source:
    """The examples of the run, with planted noise if asked for."""
    source = open_source(config.data, field="data", index=index_folder(workdir, "data"))
    if config.data.plant_mismatch:
        source = PlantedMismatch(source, config.data.plant_mismatch, config.seed)
    return source


def make_transform(config: ConfigDict) -> ImageTransform:
    """How images become squares."""
    return ImageTransform(
        size=config.data.image_size,
        resize=lookup(config.data.resize, RESIZE, field="data.resize"),
        crop_scale=tuple(config.data.crop_scale),
        flip=config.data.flip,
        seed=config.seed,
    )


def make_reading(config: ConfigDict) -> Reading:
    """Threads and workers of the pipeline."""
    if config.data.cache not in ("none", "memory"):
        raise UsageError(f"config.data.cache={config.data.cache!r}: choose one of none, memory")
    if config.data.cache == "memory" and config.data.workers:
        raise UsageError(
            f"config.data.cache='memory' lies in the trainer, out of reach of "
            f"config.data.workers={config.data.workers}: set one of them to none / 0"
        )
    return Reading(
        workers=config.data.workers, threads=config.data.threads, prefetch=config.data.prefetch
    )


def open_tokenizer(config: ConfigDict, *, source: Source, workdir: Path) -> Tokenizer:
    """The tokenizer of the config, or one trained from the captions and kept in the workdir.

    Raises:
      UsageError: the file cannot be used, or a run began here with other captions.
    """
    length = config.tokenizer.context_length
    if config.tokenizer.model:
        return Tokenizer(config.tokenizer.model, context_length=length)
    path, marker = workdir / "tokenizer.model", workdir / "tokenizer.json"
    made_from = {
        "captions": source.fingerprint,
        "vocab_size": config.tokenizer.vocab_size,
        "max_sentences": config.tokenizer.max_sentences,
    }

    def train() -> None:
        if path.exists() and marker.exists() and json.loads(marker.read_text()) == made_from:
            return
        if (workdir / "data.json").exists():
            raise UsageError(
                f"the captions changed since the run in {workdir} began, and its {path.name} was "
                "made from the old ones; bring the data back or choose another --workdir"
            )
        train_tokenizer(
            (source.caption(i) for i in sampled_ids(len(source), config)),
            path=path,
            vocab_size=config.tokenizer.vocab_size,
            max_sentences=config.tokenizer.max_sentences,
        )
        write_atomically(marker, json.dumps(made_from).encode())

    on_leader(train)
    return Tokenizer(path, context_length=length)


def sampled_ids(num_examples: int, config: ConfigDict) -> range:
    """Evenly spaced examples whose captions train the tokenizer."""
    return range(0, num_examples, max(1, num_examples // config.tokenizer.max_sentences))


def data_fingerprint(*, source: Source, tokenizer: Tokenizer) -> str:
    """Changes whenever the rows of a batch would."""
    text = f"{source.fingerprint} {tokenizer.fingerprint} {tokenizer.context_length}"
    return hashlib.sha256(text.encode()).hexdigest()[:16]


