"""Probes, neighbours and clusters of a config: made as it says, and refused in one line."""

from pathlib import Path

import pytest
from ml_collections import ConfigDict

from configs import evaluators
from nlip_jax.build.evaluation import EVALUATORS
from nlip_jax.build.evaluation.opening import Opening
from nlip_jax.commands.evaluation.example_sets import fingerprint
from nlip_jax.errors import UsageError
from nlip_jax.evaluators.linear_probe import Lbfgs
from nlip_jax.evaluators.sgd_probe import Sgd


def scenes(split: str = "validation", images: int = 2) -> ConfigDict:
    block = evaluators.class_scenes()
    block.split, block.images_per_class = split, images
    return evaluators.labelled_set("class_scenes", block)


def spec_of(kind: str, **fields) -> ConfigDict:
    if kind == "clustering":
        return evaluators.clustering("class_scenes", evaluators.class_scenes(), **fields)
    return getattr(evaluators, kind)(scenes("train", 20), scenes(), **fields)


def make(kind: str, spec: ConfigDict, *, similarity: str = "dot"):
    opening = Opening(
        field=f"evaluators.{kind}.x", workdir=Path("unused"), storage=None, similarity=similarity
    )
    return EVALUATORS[kind](spec, opening)


def test_the_defaults_are_those_of_the_evaluators():
    probe = make("linear_probe", spec_of("linear_probe"))
    assert probe.protocol == Lbfgs() and probe.features == "embed"
    assert len(probe.train.labels) == 10 * len(probe.test.labels)
    few = make("few_shot", spec_of("few_shot"))
    assert few.probe == Lbfgs() and few.num_shots == (1, 2, 4, 8, 16) and few.num_seeds == 3
    assert make("knn", spec_of("knn")).num_neighbours == 20
    assert make("clustering", spec_of("clustering")).num_restarts == 5


def test_the_protocol_is_a_name():
    assert make("linear_probe", spec_of("linear_probe", protocol="sgd")).protocol == Sgd()


def test_the_same_images_are_the_same_examples_whatever_is_learnt_from_others():
    """So two protocols, numbers of shots or training sets can be compared."""
    fields = {
        "linear_probe": {"protocol": "sgd"},
        "few_shot": {"num_shots": (2,), "seed": 5, "regularisation": 1.0},
        "knn": {"num_neighbours": 3, "train": scenes("train", 5)},
        "clustering": {"init": "k-means++", "num_restarts": 1},
    }
    known = set()
    for kind, other in fields.items():
        spec = spec_of(kind)
        found = fingerprint(make(kind, spec))
        spec.update(other)
        assert fingerprint(make(kind, spec)) == found
        tested = spec.class_scenes if kind == "clustering" else spec.test.class_scenes
        tested.seed = 1
        changed = fingerprint(make(kind, spec))
        assert changed != found
        known |= {found, changed}
    assert len(known) == 4  # two sets of images of two sizes


def test_pooled_features_of_a_model_that_compares_tokens():
    spec = spec_of("knn", features="pooled")
    assert make("knn", spec, similarity="token_max").features == "pooled"


@pytest.mark.parametrize(
    ("kind", "fields", "message"),
    [
        ("linear_probe", {"protocol": "adam"}, r"\.x\.protocol='adam': choose one of lbfgs, sgd"),
        ("linear_probe", {"features": "x"}, r"\.x: features='x': choose one of embed, pooled"),
        ("few_shot", {"num_shots": (32,)}, r"\.x: num_shots=\(32,\): class "),
        ("clustering", {"init": "x"}, r"\.x: init='x': choose one of random, k-means"),
    ],
)
def test_refused(kind, fields, message):
    with pytest.raises(UsageError, match=rf"config\.evaluators\.{kind}{message}"):
        make(kind, spec_of(kind, **fields))


def test_refused_for_the_model():
    for kind in ("linear_probe", "few_shot", "knn", "clustering"):
        with pytest.raises(UsageError, match="compares pooled embeddings"):
            make(kind, spec_of(kind), similarity="token_max")
