"""Evaluators of a config."""

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from nlip_jax.build.names import lookup
from nlip_jax.build.objective import objective
from nlip_jax.build.sources import make_storage, open_source
from nlip_jax.data.images.transform import ImageTransform
from nlip_jax.data.source import Source
from nlip_jax.data.synthetic import ClassScenes
from nlip_jax.data.text.tokenizer import Tokenizer
from nlip_jax.errors import UsageError
from nlip_jax.evaluators.base import Towers
from nlip_jax.evaluators.retrieval import Retrieval
from nlip_jax.evaluators.zero_shot import ZeroShot
from nlip_jax.methods.clip import Clip
from nlip_jax.train.map_examples import Mapper
from nlip_jax.types import PyTree


def _class_scenes(spec: ConfigDict) -> dict[str, Any]:
    scenes = ClassScenes(**spec)
    return {
        "source": scenes,
        "labels": scenes.labels,
        "class_names": scenes.class_names,
        "templates": scenes.templates,
    }


LABELLED_SETS = {"class_scenes": _class_scenes}


def _zero_shot(
    spec: ConfigDict, *, field: str, open_set: Callable[[], Source], similarity: str
) -> ZeroShot:
    del open_set
    make = lookup(spec.source, LABELLED_SETS, field=f"{field}.source")
    if spec.ensemble == "embeddings" and similarity != "dot":
        raise UsageError(
            f"config.{field}.ensemble='embeddings' averages pooled embeddings; with "
            f"loss.similarity={similarity!r} set it to 'similarities'"
        )
    return ZeroShot(**make(spec[spec.source]), ensemble=spec.ensemble)


def _retrieval(
    spec: ConfigDict, *, field: str, open_set: Callable[[], Source], similarity: str
) -> Retrieval:
    del spec, similarity
    source = open_set()
    if len(source.holes):
        raise UsageError(
            f"config.{field}: {len(source.holes)} shards were removed from this set after it was "
            "indexed; an evaluation set is used whole: index it anew in another folder"
        )
    return Retrieval(source=source)


EVALUATORS = {"zero_shot": _zero_shot, "retrieval": _retrieval}


def make_evaluators(config: ConfigDict, workdir: Path) -> dict[str, ZeroShot | Retrieval]:
    """Evaluators by "KIND/SET"."""
    similarity = objective(config).similarity
    evaluators = {}
    for kind, sets in config.evaluators.items():
        make = lookup(kind, EVALUATORS, field="evaluators")
        for name, spec in sets.items():
            evaluators[f"{kind}/{name}"] = make(
                spec,
                field=f"evaluators.{kind}.{name}",
                open_set=functools.partial(
                    open_source,
                    spec,
                    field=f"evaluators.{kind}.{name}",
                    workdir=workdir,
                    name=f"{kind}-{name}",
                    storage=make_storage(config),
                ),
                similarity=similarity,
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
