"""k-NN: known answers, the slow vote and scikit-learn's, ties, images that cannot be read."""

import numpy as np
import pytest
import reference
from labelled_rows import blobs, labelled, towers_of
from sklearn.neighbors import KNeighborsClassifier
from tiny import mesh_of

from nlip_jax.errors import RunError, UsageError
from nlip_jax.evaluators.knn import Knn, nearest, place_by_votes
from nlip_jax.evaluators.probe_rows import ProbeRows

CLASSES, TRAIN, TEST = 7, 120, 61


def sets(noise: float = 1.2, **fields):
    x, labels = blobs(TRAIN + TEST, classes=CLASSES, noise=noise)
    train = labelled(labels[:TRAIN], classes=CLASSES)
    test = labelled(labels[TRAIN:], first=TRAIN, classes=CLASSES)
    return Knn(**{"train": train, "test": test} | fields), x, labels


def test_an_image_of_the_training_set_finds_itself():
    x, labels = blobs(40, classes=CLASSES, noise=9.0)
    same = labelled(labels, classes=CLASSES)
    found = Knn(train=same, test=same, num_neighbours=1).run(towers_of(x))
    assert found.metrics["top1"] == found.metrics["nearest_top1"] == 1
    assert found.headline == "top1" and found.exhibits[0].accuracy.tolist() == [1] * CLASSES


@pytest.mark.parametrize("features", ["embed", "pooled"])
@pytest.mark.parametrize("k", [1, 5, 20])
def test_as_the_slow_vote_and_scikit_learn(k, features):
    evaluator, x, labels = sets(num_neighbours=k, features=features)
    found = evaluator.run(towers_of(x))

    def weight(similarity):
        return np.exp(similarity / 0.07)

    votes = [reference.vote(x[:TRAIN], labels[:TRAIN], row, k, weight) for row in x[TRAIN:]]
    right = [order[0] == label for order, label in zip(votes, labels[TRAIN:], strict=True)]
    in_five = [label in order[:5] for order, label in zip(votes, labels[TRAIN:], strict=True)]
    np.testing.assert_array_equal(found.samples["top1"].values, right)
    np.testing.assert_array_equal(found.samples["top5"].values, in_five)

    for name, weights in (("top1", lambda d: weight(1 - d)), ("majority_top1", "uniform")):
        model = KNeighborsClassifier(k, metric="cosine", algorithm="brute", weights=weights)
        predicted = model.fit(x[:TRAIN], labels[:TRAIN]).predict(x[TRAIN:])
        np.testing.assert_array_equal(found.samples[name].values, predicted == labels[TRAIN:])


def test_the_same_on_any_mesh():
    evaluator, x, _ = sets()
    found = [evaluator.run(towers_of(x, devices=n)) for n in (1, 2, 3, 8)]
    for other in found[1:]:
        assert other.metrics == found[0].metrics
        np.testing.assert_array_equal(other.samples["top1"].values, found[0].samples["top1"].values)


def test_ties():
    """Equally near images in the order of the training set, equal votes by lower class."""
    train = ProbeRows(x=np.float32([[1, 0]] * 4), labels=np.int32([2, 1, 0, 1]))
    test = ProbeRows(x=np.float32([[1, 0]]), labels=np.int32([1]))
    classes, scores = nearest(train, test, k=3, mesh=mesh_of(2))
    assert classes.tolist() == [[2, 1, 0]] and scores.tolist() == [[1, 1, 1]]
    places = [place_by_votes(classes, scores, np.array([c]), num_classes=3)[0] for c in range(3)]
    assert places == [0, 1, 2]


def test_a_class_without_a_vote_is_nowhere():
    rank = place_by_votes(np.array([[0, 0]]), np.ones((1, 2)), np.array([1]), num_classes=2)
    assert rank[0] >= 5  # not among the best five, though there are two classes


def test_images_that_cannot_be_read():
    x, labels = blobs(12, classes=3, noise=0.01)
    train = labelled(labels, classes=3, broken=(0, 4))
    test = labelled(labels, classes=3, broken=(1,))
    evaluator = Knn(train=train, test=test, num_neighbours=30)  # more than there are
    found = evaluator.run(towers_of(x))
    assert found.metrics["top1"] == found.metrics["top5"] == pytest.approx(11 / 12)
    assert found.metrics["nearest_top1"] == pytest.approx(11 / 12)
    with pytest.raises(RunError, match="no image"):
        ProbeRows(x=np.full((2, 3), np.nan), labels=np.int32([0, 1])).readable()


def test_refused():
    evaluator, _, labels = sets()
    other = labelled(labels[:TRAIN], classes=CLASSES + 1)
    with pytest.raises(UsageError, match=r"train has 8 classes and test has 7"):
        Knn(train=other, test=evaluator.test)
    with pytest.raises(UsageError, match="choose one of embed, pooled"):
        sets(features="tokens")
    with pytest.raises(UsageError, match="num_neighbours=0"):
        sets(num_neighbours=0)
    with pytest.raises(UsageError, match=r"temperature=0\.0"):
        sets(temperature=0.0)
