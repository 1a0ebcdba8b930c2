"""Nearest neighbours of a config."""

from ml_collections import ConfigDict

from nlip_jax.build.evaluation.opening import Opening
from nlip_jax.build.evaluation.probing import (
    check_embeddings,
    of_field,
    open_train_and_test,
    take_fields,
)
from nlip_jax.evaluators.knn import Knn

_FIELDS = ("features", "num_neighbours", "temperature")


def make_knn(spec: ConfigDict, opening: Opening) -> Knn:
    """The evaluator of a training set and a test set."""
    fields = take_fields(spec, _FIELDS)
    check_embeddings(spec, opening)
    sets = open_train_and_test(spec, opening)
    with of_field(opening):
        return Knn(**fields | sets)
