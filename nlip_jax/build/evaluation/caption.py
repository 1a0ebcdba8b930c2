"""Captioning of a config."""

from ml_collections import ConfigDict

from nlip_jax.build.evaluation.opening import Opening
from nlip_jax.build.names import lookup
from nlip_jax.data.source import Source
from nlip_jax.errors import UsageError
from nlip_jax.evaluators.captions.evaluator import Captioning
from nlip_jax.evaluators.captions.metrics import METRICS
from nlip_jax.evaluators.captions.predictions import (
    NUMBERS,
    match_predictions,
    read_predictions,
)


def make_caption(spec: ConfigDict, opening: Opening) -> Captioning:
    """The evaluator of one captioned set."""
    field = f"config.{opening.field}"
    metrics = tuple(spec.metrics)
    if not metrics or len(set(metrics)) != len(metrics):
        raise UsageError(f"{field}.metrics={metrics}: name one or several, each once")
    for name in metrics:
        if name not in METRICS:
            raise UsageError(f"{field}.metrics has {name!r}: choose of {', '.join(METRICS)}")
        METRICS[name].check()
    lookup(spec.image_ids, dict.fromkeys(NUMBERS), field=f"{opening.field}.image_ids")
    if not spec.predictions and not opening.can_caption:
        raise UsageError(
            f"{field}: this model makes no captions; name a file of them: "
            f"--{field}.predictions=FILE.json"
        )
    if spec.predictions and spec.prompt:
        raise UsageError(
            f"{field}.prompt={spec.prompt!r}: it is taken off the model's captions; those of "
            "a predictions file are measured as they are"
        )
    source = opening.open_source(spec)
    return Captioning(
        source=source,
        produced=_predictions(spec, source, opening) if spec.predictions else None,
        metrics=metrics,
        prompt=spec.prompt,
        examples=spec.examples,
    )


def _predictions(spec: ConfigDict, source: Source, opening: Opening) -> tuple[str, ...]:
    keys = [source.place(i).key for i in range(source.num_images)]
    found = read_predictions(spec.predictions, storage=opening.storage)
    return tuple(match_predictions(found, keys, path=spec.predictions, numbers=spec.image_ids))
