"""Evaluators of a config, and the trained model as they see it."""

import functools
from collections.abc import Callable
from pathlib import Path

from ml_collections import ConfigDict

from nlip_jax.build.blocks import check_evaluator
from nlip_jax.build.captions import can_caption
from nlip_jax.build.evaluation.caption import make_caption
from nlip_jax.build.evaluation.clustering import make_clustering
from nlip_jax.build.evaluation.few_shot import make_few_shot
from nlip_jax.build.evaluation.geometry import make_geometry
from nlip_jax.build.evaluation.judgement import make_judgement
from nlip_jax.build.evaluation.knn import make_knn
from nlip_jax.build.evaluation.linear_probe import make_linear_probe
from nlip_jax.build.evaluation.opening import Opening
from nlip_jax.build.evaluation.pair_choice import make_pair_choice
from nlip_jax.build.evaluation.retrieval import make_retrieval
from nlip_jax.build.evaluation.zero_shot import make_zero_shot
from nlip_jax.build.names import lookup
from nlip_jax.build.objective import objective
from nlip_jax.build.sources import make_storage
from nlip_jax.data.images.transform import ImageTransform
from nlip_jax.data.text.tokenizer import Tokenizer
from nlip_jax.errors import UsageError
from nlip_jax.evaluators.base import Evaluator, Towers
from nlip_jax.evaluators.summary import AVERAGE
from nlip_jax.methods.clip import Clip
from nlip_jax.sharding import num_row_shards
from nlip_jax.train.map_examples import Mapper
from nlip_jax.types import PyTree

EVALUATORS: dict[str, Callable[[ConfigDict, Opening], Evaluator]] = {
    "zero_shot": make_zero_shot,
    "retrieval": make_retrieval,
    "linear_probe": make_linear_probe,
    "few_shot": make_few_shot,
    "knn": make_knn,
    "clustering": make_clustering,
    "geometry": make_geometry,
    "caption": make_caption,
    "pair_choice": make_pair_choice,
    "judgement": make_judgement,
}


def make_evaluators(
    config: ConfigDict, workdir: Path, *, similarity: str = "", can_caption: bool = False
) -> dict[str, Evaluator]:
    """Evaluators by "KIND/SET".

    Args:
      config: whose sets they are.
      workdir: where indices go whose place the config does not name.
      similarity: of the model, a key of `SIMILARITIES`; empty: that of the config's method.
      can_caption: whether the model makes captions.
    """
    makers = evaluator_makers(config, workdir, similarity=similarity, can_caption=can_caption)
    return {name: make() for name, make in makers.items()}


def evaluator_makers(
    config: ConfigDict, workdir: Path, *, similarity: str = "", can_caption: bool = False
) -> dict[str, Callable[[], Evaluator]]:
    """What makes each evaluator, for whoever goes on where one cannot be made.

    Args:
      config: as of `make_evaluators`.
      workdir: likewise.
      similarity: likewise.
      can_caption: likewise.

    Raises:
      UsageError: there is no such kind, a set is named as averages are, or its spec has a field
        that nothing reads or lacks one.
    """
    similarity, storage = similarity or objective(config).similarity, make_storage(config)
    makers = {}
    for kind, sets in config.evaluators.items():
        make = lookup(kind, EVALUATORS, field="evaluators")
        for name, spec in sets.items():
            if name == AVERAGE:
                raise UsageError(
                    f"config.evaluators.{kind}.{name}: the mean over sets is called so; name the "
                    "set otherwise"
                )
            field = f"evaluators.{kind}.{name}"
            if "/" in name:
                raise UsageError(
                    f"config.{field}: results are named KIND/SET/METRIC; name the set without a /"
                )
            check_evaluator(spec, kind=kind, field=field)
            opening = Opening(
                field=field,
                workdir=workdir,
                storage=storage,
                similarity=similarity,
                can_caption=can_caption,
            )
            makers[f"{kind}/{name}"] = functools.partial(make, spec, opening)
    return makers


def make_towers(
    config: ConfigDict,
    *,
    method: Clip,
    params: PyTree,
    model_state: PyTree,
    tokenizer: Tokenizer,
    transform: ImageTransform,
    mapper: Mapper,
) -> Towers:
    """The trained model as evaluators see it."""
    variables = {"params": params, **model_state}
    caption = None
    if can_caption(config):
        caption = method.caption
        if config.evaluators.caption:
            variables = method.prepare_captions(variables)
    return Towers(
        variables=variables,
        caption=caption,
        image_features=method.image_features,
        pooled_features=method.pooled_features,
        text_features=method.text_features,
        similarity=method.similarity,
        tokenizer=tokenizer,
        transform=transform,
        collect=mapper.collect,
        batch_size=config.evaluation.rows_per_device * num_row_shards(mapper.mesh),
        mesh=mapper.mesh,
    )
