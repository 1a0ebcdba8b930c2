"""From a config to objects: the only place where names meet classes.

Every table lists the choices of one field. "package.module:name" in place of a method's name
reaches a user's own function with the signature of the functions in `METHODS`.
"""

import dataclasses
import functools
import hashlib
import importlib
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import Mesh
from ml_collections import ConfigDict

from nlip_jax import sharding
from nlip_jax.config import Clock
from nlip_jax.data.index import Index, build_index
from nlip_jax.data.loading import RESIZE, ImageTransform
from nlip_jax.data.pipeline import Reading
from nlip_jax.data.planted import FirstImages, PlantedMismatch
from nlip_jax.data.shards import expand_shards
from nlip_jax.data.source import Source
from nlip_jax.data.synthetic import ClassScenes, SyntheticScenes
from nlip_jax.data.tar_source import TarSource
from nlip_jax.data.tokenizer import Tokenizer, train_tokenizer
from nlip_jax.errors import RunError, UsageError
from nlip_jax.estimators import gaussian_mixture
from nlip_jax.evaluators.base import Towers
from nlip_jax.evaluators.retrieval import Retrieval
from nlip_jax.evaluators.zero_shot import ZeroShot
from nlip_jax.files import write_atomically
from nlip_jax.losses.targets import NOISE_ADAPTIVE
from nlip_jax.methods.base import Method
from nlip_jax.methods.clip import Clip
from nlip_jax.methods.nlip import Nlip
from nlip_jax.methods.similarities import SIMILARITIES
from nlip_jax.models.dual_encoder import DualEncoder
from nlip_jax.models.text_transformer import TextTransformer
from nlip_jax.models.vit import VisionTransformer
from nlip_jax.train.loop import Plan
from nlip_jax.train.map_examples import Mapper
from nlip_jax.train.optimizer import Optimizer, make_optimizer
from nlip_jax.train.schedule import OPEN_ENDED, Schedule, make_schedule
from nlip_jax.types import PyTree

T = TypeVar("T")


def lookup(name: str, table: Mapping[str, T], *, field: str) -> T:
    """The entry of a table, or an error that lists the choices.

    Args:
      name: from the config; "package.module:name" imports a user's own object.
      table: name -> entry.
      field: of the config, for the message.

    Raises:
      UsageError: the name is in no table and cannot be imported.
    """
    if name in table:
        return table[name]
    if ":" in name:
        module, _, attribute = name.partition(":")
        try:
            return getattr(importlib.import_module(module), attribute)
        except (ImportError, AttributeError, ValueError) as error:
            raise UsageError(f"config.{field}={name!r} cannot be imported: {error}") from error
    raise UsageError(f"config.{field}={name!r}: choose one of {', '.join(table)}")


def on_leader(work: Callable[[], None]) -> None:
    """Runs something that writes files on the first process; the others wait, and fail with it."""
    problem = None
    if jax.process_index() == 0:
        try:
            work()
        except (UsageError, RunError) as error:
            problem = error
    if jax.process_count() > 1:
        failed = multihost_utils.broadcast_one_to_all(np.int32(problem is not None))
        if failed and problem is None:
            raise RunError("the first process stopped; its message says why")
    if problem is not None:
        raise problem


def make_mesh(config: ConfigDict) -> Mesh:
    """The mesh, checked against the batches that it has to share."""
    mesh = sharding.make_mesh(data=config.mesh.data, fsdp=config.mesh.fsdp)
    sharding.check_batch(config.batch_size, mesh, field="batch_size")
    sharding.check_batch(config.evaluation.batch_size, mesh, field="evaluation.batch_size")
    return mesh


# --- data -----------------------------------------------------------------------------------------


def _synthetic(spec: ConfigDict, *, index: Path) -> Source:
    del index
    return SyntheticScenes(**spec)


def _tar(spec: ConfigDict, *, index: Path) -> Source:
    if not spec.shards:
        raise UsageError(
            "tar.shards is empty: name the shards, such as "
            "--config.data.tar.shards='data/train/*.tar'"
        )
    directory = Path(spec.index) if spec.index else index
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
    source = open_source(config.data, field="data", index=workdir / "index" / "data")
    if config.method == "nlip" and source.draws_captions:
        raise UsageError(
            "config.data.tar.captions='sample' gives a pair another caption each epoch, so it has "
            "no noise probability; method=nlip needs captions='expand'"
        )
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


# --- model and method -----------------------------------------------------------------------------


def make_model(config: ConfigDict, *, vocab_size: int) -> DualEncoder:
    """The two towers."""
    shared = {
        "dtype": config.model.dtype,
        "remat": config.model.remat,
        "scan": config.model.scan,
    }

    def tower(fields: ConfigDict) -> dict[str, Any]:
        return {**fields, "mlp_dim": fields.mlp_dim or None, **shared}

    return DualEncoder(
        image=VisionTransformer(image_size=config.data.image_size, **tower(config.model.image)),
        text=TextTransformer(
            vocab_size=vocab_size,
            context_length=config.tokenizer.context_length,
            **tower(config.model.text),
        ),
        embed_dim=config.model.embed_dim,
        init_temperature=config.model.init_temperature,
        max_logit_scale=config.model.max_logit_scale,
        token_features=config.loss.similarity == "token_max",
    )


def _clip(config: ConfigDict, *, model: DualEncoder, mesh: Mesh, clock: Clock) -> Method:
    del mesh, clock
    return Clip(model=model, similarity=_similarity(config))


def _nlip(config: ConfigDict, *, model: DualEncoder, mesh: Mesh, clock: Clock) -> Method:
    fields = config.nlip
    lookup(fields.model, {"dual_encoder": None}, field="nlip.model")
    percentiles = tuple(fields.clip_percentiles)
    if len(percentiles) != 2 or not percentiles[0] < percentiles[1]:
        raise UsageError(f"config.nlip.clip_percentiles={percentiles}: must be (low, high)")
    warmup = clock.steps(fields.warmup, field="nlip.warmup")
    period = clock.steps(fields.reestimate_every, field="nlip.reestimate_every")
    if not 0 < warmup < clock.total_steps:
        raise UsageError(
            f"config.nlip.warmup={fields.warmup!r} is {warmup} steps: the first estimate must fall "
            f"inside the run of {clock.total_steps}"
        )
    later = range(warmup + period, clock.total_steps, period) if period else ()
    return Nlip(
        model=model,
        similarity=_similarity(config),
        refresh_steps=(warmup, *later),
        weight=fields.weight,
        form=lookup(fields.form, NOISE_ADAPTIVE, field="nlip.form"),
        fit=functools.partial(
            gaussian_mixture.fit,
            clip_percentiles=percentiles,
            num_bins=fields.num_bins,
            max_iterations=fields.max_iterations,
            tolerance=fields.tolerance,
            reg_covar=fields.reg_covar,
            mesh=mesh,
        ),
        posterior=functools.partial(gaussian_mixture.posterior, mesh=mesh),
    )


METHODS = {"clip": _clip, "nlip": _nlip}


def _similarity(config: ConfigDict) -> Callable:
    return lookup(config.loss.similarity, SIMILARITIES, field="loss.similarity")


def make_method(config: ConfigDict, *, model: DualEncoder, mesh: Mesh, clock: Clock) -> Method:
    """The method of the config, bound to its model and mesh."""
    make = lookup(config.method, METHODS, field="method")
    return make(config, model=model, mesh=mesh, clock=clock)


# --- durations and optimisation -------------------------------------------------------------------


def make_clock(config: ConfigDict, *, num_examples: int) -> Clock:
    """Converts the durations of this run."""
    clock = Clock(batch_size=config.batch_size, num_examples=num_examples)
    total = clock.steps(config.total, field="total")
    if total < 1:
        raise UsageError(f"config.total={config.total!r}: a run needs at least one step")
    return dataclasses.replace(clock, total_steps=total)


def make_plan(config: ConfigDict, *, clock: Clock, refresh_steps: tuple[int, ...]) -> Plan:
    """What is due when."""
    return Plan(
        total=clock.total_steps,
        log_every=clock.steps(config.log.every, field="log.every"),
        checkpoint_every=clock.steps(config.checkpoint.every, field="checkpoint.every"),
        evaluate_every=clock.steps(config.evaluation.every, field="evaluation.every"),
        refresh_steps=refresh_steps,
    )


def make_learning_rate(config: ConfigDict, *, clock: Clock) -> Schedule:
    """The schedule."""
    return make_schedule(
        name=config.schedule.name,
        peak=config.optimizer.learning_rate,
        warmup=clock.steps(config.schedule.warmup, field="schedule.warmup"),
        total=clock.total_steps,
        end=config.schedule.end,
        timescale=clock.steps(config.schedule.timescale, field="schedule.timescale"),
    )


def make_tx(config: ConfigDict, *, schedule: Schedule) -> Optimizer:
    """The optimizer."""
    fields = {k: v for k, v in config.optimizer.items() if k != "learning_rate"}
    return make_optimizer(schedule=schedule, **fields)


def may_grow(config: ConfigDict) -> bool:
    """Whether a finished run may be prolonged: nothing it did depended on its length."""
    durations = [config.schedule.warmup, config.schedule.timescale]
    if config.method == "nlip":
        durations += [config.nlip.warmup, config.nlip.reestimate_every]
    return config.schedule.name in OPEN_ENDED and not any("%" in text for text in durations)


# --- evaluation -----------------------------------------------------------------------------------


def _class_scenes(spec: ConfigDict) -> dict[str, Any]:
    scenes = ClassScenes(**spec)
    return {
        "source": scenes,
        "labels": scenes.labels,
        "class_names": scenes.class_names,
        "templates": scenes.templates,
    }


LABELLED_SETS = {"class_scenes": _class_scenes}


def _zero_shot(spec: ConfigDict, *, field: str, index: Path, similarity: str) -> ZeroShot:
    del index
    make = lookup(spec.source, LABELLED_SETS, field=f"{field}.source")
    if spec.ensemble == "embeddings" and similarity != "dot":
        raise UsageError(
            f"config.{field}.ensemble='embeddings' averages pooled embeddings; with "
            f"config.loss.similarity={similarity!r} set it to 'similarities'"
        )
    return ZeroShot(**make(spec[spec.source]), ensemble=spec.ensemble)


def _retrieval(spec: ConfigDict, *, field: str, index: Path, similarity: str) -> Retrieval:
    del similarity
    return Retrieval(source=open_source(spec, field=field, index=index))


EVALUATORS = {"zero_shot": _zero_shot, "retrieval": _retrieval}


def make_evaluators(config: ConfigDict, workdir: Path) -> dict[str, ZeroShot | Retrieval]:
    """Evaluators by "KIND/SET"."""
    _similarity(config)  # a wrong name is to be told as such, not by what follows from it
    evaluators = {}
    for kind, sets in config.evaluators.items():
        make = lookup(kind, EVALUATORS, field="evaluators")
        for name, spec in sets.items():
            evaluators[f"{kind}/{name}"] = make(
                spec,
                field=f"evaluators.{kind}.{name}",
                index=workdir / "index" / f"{kind}-{name}",
                similarity=config.loss.similarity,
            )
    return evaluators


def make_towers(
    config: ConfigDict,
    *,
    method: Clip,
    params: PyTree,
    tokenizer: Tokenizer,
    transform: ImageTransform,
    mapper: Mapper,
) -> Towers:
    """The trained model as evaluators see it."""
    return Towers(
        params=params,
        image_features=method.image_features,
        text_features=method.text_features,
        similarity=method.similarity,
        tokenizer=tokenizer,
        transform=transform,
        collect=mapper.collect,
        batch_size=config.evaluation.batch_size,
    )
