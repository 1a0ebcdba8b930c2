"""Geometry of a config."""

from ml_collections import ConfigDict

from nlip_jax.build.evaluation.judgement import check_pooled
from nlip_jax.build.evaluation.opening import Opening
from nlip_jax.build.evaluation.retrieval import open_captioned
from nlip_jax.errors import UsageError
from nlip_jax.evaluators.geometry import Geometry


def make_geometry(spec: ConfigDict, opening: Opening) -> Geometry:
    """The evaluator of one captioned set."""
    check_pooled(opening)
    source = open_captioned(spec, opening)
    if source.num_images < 2:
        raise UsageError(f"config.{opening.field}: has one image, geometry needs two or more")
    return Geometry(source=source)
