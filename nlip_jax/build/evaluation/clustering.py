"""Clustering of a config."""

from ml_collections import ConfigDict

from nlip_jax.build.evaluation.labelled import open_labelled
from nlip_jax.build.evaluation.opening import Opening
from nlip_jax.build.evaluation.probing import check_embeddings, of_field
from nlip_jax.evaluators.clustering import Clustering

_FIELDS = ("features", "num_iterations", "num_restarts", "init", "seed")


def make_clustering(spec: ConfigDict, opening: Opening) -> Clustering:
    """The evaluator of one labelled set."""
    check_embeddings(spec, opening)
    labelled = open_labelled(spec, opening)
    with of_field(opening):
        return Clustering(labelled=labelled, **{name: spec[name] for name in _FIELDS})
