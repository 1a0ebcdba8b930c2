"""Zero-shot classification of a config."""

from ml_collections import ConfigDict

from nlip_jax.build.evaluation.labelled import open_labelled
from nlip_jax.build.evaluation.opening import Opening
from nlip_jax.build.names import lookup
from nlip_jax.errors import UsageError
from nlip_jax.evaluators.zero_shot import ENSEMBLES, METRICS, ZeroShot

_ENSEMBLES = {name: name for name in ENSEMBLES}
_METRICS = {"auto": "", **{metric: metric for metric in METRICS}}


def make_zero_shot(spec: ConfigDict, opening: Opening) -> ZeroShot:
    """The evaluator of one labelled set."""
    field = f"config.{opening.field}"
    ensemble = lookup(spec.ensemble, _ENSEMBLES, field=f"{opening.field}.ensemble")
    metric = lookup(spec.metric, _METRICS, field=f"{opening.field}.metric")
    if ensemble == "embeddings" and opening.similarity != "dot":
        raise UsageError(
            f"{field}.ensemble='embeddings' averages pooled embeddings; with "
            f"loss.similarity={opening.similarity!r} set it to 'similarities'"
        )
    labelled = open_labelled(spec, opening)
    if not labelled.templates:
        raise UsageError(
            f"{field}: the set has no templates: name prompts, or set {opening.field}.templates to "
            "texts such as 'a photo of a {}.'"
        )
    return ZeroShot(labelled=labelled, ensemble=ensemble, metric=metric or labelled.metric)
