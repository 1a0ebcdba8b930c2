"""Clustering: known answers, and scores of partitions against scikit-learn's."""

import numpy as np
import pytest
from labelled_rows import blobs, labelled, towers_of
from sklearn import metrics
from sklearn.metrics.cluster import contingency_matrix, expected_mutual_information

from nlip_jax.errors import UsageError
from nlip_jax.evaluators import partition_scores as scores
from nlip_jax.evaluators.clustering import Clustering

CASES = {
    "one": (1, 1, 1),
    "two apart": (2, 2, 2),
    "two together": (2, 1, 1),
    "apart and together": (6, 6, 1),
    "all apart": (6, 6, 6),
    "few": (60, 4, 7),
    "one to many": (80, 1, 5),
    "almost apart": (90, 90, 30),
    "many": (3000, 40, 55),
}


def partitions(n: int, first: int, second: int, share: float = 0.5):
    rng = np.random.default_rng(n)
    a = np.arange(n) if first == n else rng.integers(0, first, n)
    b = np.where(rng.random(n) < share, a % second, rng.integers(0, second, n))
    return a, (np.arange(n) if second == n else b) * 3 + 5  # names need not be dense


@pytest.mark.parametrize("case", CASES)
def test_scores_of_partitions(case):
    a, b = partitions(*CASES[case])
    table = scores.contingency(a, b)
    np.testing.assert_array_equal(table, contingency_matrix(a, b))
    for ours, theirs in (
        (scores.adjusted_rand_index, metrics.adjusted_rand_score),
        (scores.adjusted_mutual_information, metrics.adjusted_mutual_info_score),
        (scores.normalised_mutual_information, metrics.normalized_mutual_info_score),
        (scores.mutual_information, metrics.mutual_info_score),
    ):
        assert ours(table) == pytest.approx(theirs(a, b), abs=1e-10)
    expected = expected_mutual_information(contingency_matrix(a, b, sparse=True), len(a))
    assert scores.expected_mutual_information(table.sum(1), table.sum(0)) == pytest.approx(
        expected, abs=1e-10
    )


def test_expected_mutual_information_is_the_mean_over_permutations():
    a, b = partitions(40, 3, 4)
    rng = np.random.default_rng(1)
    drawn = [
        scores.mutual_information(scores.contingency(a, rng.permutation(b))) for _ in range(2000)
    ]
    table = scores.contingency(a, b)
    mean = scores.expected_mutual_information(table.sum(1), table.sum(0))
    assert mean == pytest.approx(np.mean(drawn), abs=4 * np.std(drawn) / 2000**0.5)


def test_adjusted_rand_index_of_more_pairs_than_64_bits_can_multiply():
    table = np.array([[160_000, 40_000], [0, 200_000]])
    small = scores.adjusted_rand_index(table // 100)
    assert scores.adjusted_rand_index(table) == pytest.approx(small, abs=1e-3)
    assert small == pytest.approx(0.64, abs=1e-3)


def test_purity():
    true = np.array([0, 0, 1, 1, 1, 2])
    clusters = np.array([7, 7, 7, 4, 4, 4])
    np.testing.assert_array_equal(scores.in_largest(true, clusters), [1, 1, 0, 1, 1, 0])


@pytest.mark.parametrize("features", ["embed", "pooled"])
def test_classes_far_apart_are_found_again(features):
    x, labels = blobs(90, classes=5, noise=0.05)
    found = Clustering(labelled=labelled(labels, classes=5), features=features).run(towers_of(x))
    for name in ("ari", "ami", "nmi", "purity"):
        assert found.metrics[name] == pytest.approx(1)
    assert found.headline == "ari"


def test_noise_finds_nothing_and_any_mesh_finds_the_same():
    x, labels = blobs(120, classes=4, noise=50.0)
    evaluator = Clustering(labelled=labelled(labels, classes=4), num_restarts=2)
    found = [evaluator.run(towers_of(x, devices=n)) for n in (1, 8)]
    assert abs(found[0].metrics["ari"]) < 0.1 and abs(found[0].metrics["ami"]) < 0.1
    assert found[1].metrics == pytest.approx(found[0].metrics, abs=1e-6)


def test_images_that_cannot_be_read_are_left_out():
    x, labels = blobs(30, classes=3, noise=0.05)
    found = Clustering(labelled=labelled(labels, classes=3, broken=(2, 3))).run(towers_of(x))
    assert found.metrics["ari"] == 1 and len(found.samples["purity"].values) == 28


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"init": "best"}, "choose one of random, k-means"),
        ({"num_restarts": 0}, "at least 1"),
        ({"labelled": labelled([0, 1], classes=3)}, "3 clusters of 2 images"),
    ],
)
def test_refused(fields, message):
    with pytest.raises(UsageError, match=message):
        Clustering(**{"labelled": labelled([0, 1, 0], classes=2)} | fields)
