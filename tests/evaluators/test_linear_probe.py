"""Linear probe: the solver against scikit-learn's, the sweep, SGD against the slow loop."""

import dataclasses
import math

import numpy as np
import pytest
import reference
from labelled_rows import blobs, labelled, towers_of
from sklearn.linear_model import LogisticRegression
from tiny import mesh_of

from nlip_jax.errors import UsageError
from nlip_jax.evaluators import logistic
from nlip_jax.evaluators.linear_probe import Lbfgs, LinearProbe
from nlip_jax.evaluators.logistic import Linear, classify, make_problem
from nlip_jax.evaluators.probe_rows import ProbeRows, split_rows
from nlip_jax.evaluators.regularisation import search_exponent
from nlip_jax.evaluators.sgd_probe import Sgd

CLASSES, TRAIN, TEST = 6, 140, 61


def rows(num: int = TRAIN + TEST, **fields) -> ProbeRows:
    x, labels = blobs(num, classes=CLASSES, **({"noise": 1.0} | fields))
    return ProbeRows(x=x, labels=labels.astype(np.int32))


def sets(protocol=None, **fields):
    both = rows()
    train = labelled(both.labels[:TRAIN], classes=CLASSES)
    test = labelled(both.labels[TRAIN:], first=TRAIN, classes=CLASSES)
    defaults = {"train": train, "test": test, "protocol": protocol or Lbfgs(regularisation=1.0)}
    return LinearProbe(**(defaults | fields)), both.x


def sklearn_probe(x, labels, regularisation: float) -> LogisticRegression:
    model = LogisticRegression(C=1 / regularisation, tol=1e-10, max_iter=10_000)
    return model.fit(np.float64(x), labels)


@pytest.mark.parametrize("regularisation", [1e-3, 1.0, 300.0])
@pytest.mark.parametrize("devices", [1, 3, 8])
def test_the_solution_is_scikit_learns(regularisation, devices):
    train, test = rows(), rows(4000, seed=1)
    model = sklearn_probe(train.x, train.labels, regularisation)
    mesh = mesh_of(devices)
    problem = make_problem(train.x, train.labels, num_classes=CLASSES, mesh=mesh)
    fit = Lbfgs(tolerance=1e-7).fit(problem, regularisation)

    def objective(weights, bias):
        return reference.logistic_objective(train.x, train.labels, weights, bias, regularisation)

    best = objective(model.coef_.T, model.intercept_)
    assert fit.objective == pytest.approx(best, rel=2e-6)
    assert objective(fit.linear.weights, fit.linear.bias) == pytest.approx(best, rel=2e-6)
    ours = np.mean(classify(test.x, test.labels, fit.linear, mesh=mesh) < 1)
    assert ours == pytest.approx(model.score(test.x, test.labels), abs=1e-3)


def test_correlated_features_of_any_scale_take_as_few_steps():
    """The change of variables takes scale, correlation and offset away."""
    plain = rows()
    mixing = np.random.default_rng(0).normal(size=(8, 8)) * 10.0 ** np.linspace(-1, 2, 8)
    skewed = np.float32(plain.x @ mixing + 100 * mixing.sum(0))
    steps = []
    for x in (plain.x, skewed):
        problem = make_problem(x, plain.labels, num_classes=CLASSES, mesh=mesh_of(2))
        fit = Lbfgs().fit(problem, 1e-6)
        accuracy = np.mean(classify(x, plain.labels, fit.linear, mesh=mesh_of(2)) < 1)
        steps.append((fit.iterations, accuracy))
    assert steps[1][0] <= 2 * steps[0][0]
    assert steps[1][1] == pytest.approx(steps[0][1], abs=0.02)


def test_collinear_features_and_missing_classes():
    train = rows()
    x = np.concatenate([train.x, train.x[:, :3], np.ones((len(train), 1))], 1)
    problem = make_problem(x, train.labels, num_classes=CLASSES + 2, mesh=mesh_of(2))
    fit = Lbfgs().fit(problem, 1e-2)
    rank = classify(x, train.labels, fit.linear, mesh=mesh_of(2))
    assert np.isfinite(fit.linear.weights).all() and np.mean(rank < 1) > 0.5


def test_chunks_change_nothing(monkeypatch):
    train = rows()
    options = {"num_classes": CLASSES, "mesh": mesh_of(3)}
    whole = Lbfgs().fit(make_problem(train.x, train.labels, **options), 1.0)
    monkeypatch.setattr(logistic, "_MAX_LOGITS", 8 * CLASSES)
    problem = make_problem(train.x, train.labels, **options)
    assert problem.rows.x.shape[:2] == (27, 8)  # 9 chunks a device
    parts = Lbfgs().fit(problem, 1.0)
    np.testing.assert_allclose(parts.linear.weights, whole.linear.weights, atol=1e-4)
    assert parts.objective == pytest.approx(whole.objective, rel=1e-6)


def test_a_warm_start_ends_in_the_same_place_sooner():
    train = rows()
    problem = make_problem(train.x, train.labels, num_classes=CLASSES, mesh=mesh_of(1))
    probe = Lbfgs()
    cold, near = probe.fit(problem, 1.0), probe.fit(problem, 1.2)
    warm = probe.fit(problem, 1.0, start=near.linear)
    assert warm.iterations < cold.iterations
    assert warm.objective == pytest.approx(cold.objective, rel=1e-5)
    assert probe.fit(problem, 1.0, start=cold.linear).iterations == 1


@pytest.mark.parametrize("features", ["embed", "pooled"])
def test_run(features):
    evaluator, x = sets(features=features)
    found = [evaluator.run(towers_of(x, devices=n)) for n in (1, 8)]
    scale = 3.0 if features == "pooled" else 1.0  # the fake's pooled features are 3 times as long
    train, test = scale * x[:TRAIN], scale * x[TRAIN:]
    model = sklearn_probe(train, evaluator.train.labels, 1.0)
    right = model.predict(test) == evaluator.test.labels
    np.testing.assert_array_equal(found[0].samples["top1"].values, right)
    assert found[0].metrics["top1"] == right.mean() and found[0].headline == "top1"
    assert found[0].metrics["regularisation"] == 1
    assert found[1].metrics == pytest.approx(found[0].metrics, abs=1e-6)
    assert found[0].exhibits[0].counts.tolist() == np.bincount(evaluator.test.labels).tolist()


def test_the_headline_is_the_metric_of_the_test_set():
    both = rows()
    test = labelled(both.labels[TRAIN:], first=TRAIN, classes=CLASSES)
    evaluator, x = sets(test=dataclasses.replace(test, metric="mean_per_class"))
    assert evaluator.run(towers_of(x)).headline == "mean_per_class"


def test_the_sweep():
    evaluator, x = sets(Lbfgs(validation_share=0.3, seed=4))
    found = evaluator.run(towers_of(x))
    first, second = split_rows(evaluator.train.labels, share=0.3, seed=4)
    assert len(second) == pytest.approx(0.3 * TRAIN, abs=3)
    (curve,) = found.exhibits[1:]
    for regularisation, accuracy in curve.points:
        if 1e-3 < regularisation < 1e3:  # beyond, scikit-learn takes its time
            model = sklearn_probe(x[first], evaluator.train.labels[first], regularisation)
            theirs = model.score(x[second], evaluator.train.labels[second])
            assert accuracy == pytest.approx(theirs, abs=1e-9)
    best = max(accuracy for _, accuracy in curve.points)
    chosen = found.metrics["regularisation"]
    assert chosen == max(at for at, accuracy in curve.points if accuracy == best)
    # Once more on all training rows.
    model = sklearn_probe(x[:TRAIN], evaluator.train.labels, chosen)
    assert found.metrics["top1"] == model.score(x[TRAIN:], evaluator.test.labels)


@pytest.mark.parametrize("peak", [-6.0, -1.375, 0.0, 3.25, 6.0])
def test_the_search_finds_a_peak_to_an_eighth(peak):
    asked = []

    def score(exponent: float) -> float:
        asked.append(exponent)
        return -abs(exponent - peak)

    best, scores = search_exponent(score)
    assert best == peak and asked[:7] == [6, 4, 2, 0, -2, -4, -6]
    assert len(asked) == len(scores) <= 7 + 2 * 4
    assert list(scores) == sorted(asked)


def test_the_search_prefers_more_regularisation():
    assert search_exponent(lambda exponent: 1.0)[0] == 6


def test_a_split_keeps_a_row_of_every_class():
    labels = np.array([0] * 10 + [1] * 3 + [2])
    first, second = split_rows(labels, share=0.9, seed=0)
    assert np.bincount(labels[first]).tolist() == [1, 1, 1]
    assert sorted([*first, *second]) == list(range(14))


@pytest.mark.parametrize("devices", [1, 3])
def test_sgd_as_the_slow_loop(devices):
    both = rows()
    train, test = both.take(np.arange(TRAIN)), both.take(np.arange(TRAIN, TRAIN + TEST))
    # 140 rows: four batches of 32 and one of 12.
    probe = Sgd(batch_size=32, epochs=3, seed=2, weight_decay=1e-3, learning_rate=0.5)
    found = probe.run(train, test, num_classes=CLASSES, mesh=mesh_of(devices))
    start = np.random.default_rng(2).normal(size=(8, CLASSES)) * 0.01
    orders = [np.random.default_rng((2, e)).permutation(TRAIN) for e in range(3)]
    rates = [0.5 * (1 + math.cos(math.pi * e / 3)) / 2 for e in range(3)]
    accuracies = []
    for epochs in (1, 2, 3):
        weights, bias = reference.sgd_probe(
            train.x,
            train.labels,
            start,
            orders[:epochs],
            rates=rates[:epochs],
            batch_size=32,
            momentum=0.9,
            weight_decay=1e-3,
        )
        predicted = (test.x @ weights + bias).argmax(1)
        accuracies.append((float(epochs), np.mean(predicted == test.labels)))
    assert found.curve.points == tuple(accuracies)
    assert np.mean(found.rank < 1) == accuracies[-1][1]
    assert found.metrics["best_top1"] == max(accuracy for _, accuracy in accuracies)


def test_sgd_in_parts(monkeypatch):
    both = rows()
    options = {"num_classes": CLASSES, "mesh": mesh_of(2)}
    probe = Sgd(batch_size=30, epochs=2)
    whole = probe.run(both, both, **options)
    monkeypatch.setattr("nlip_jax.evaluators.sgd_probe._PART_BYTES", 2 * 30 * 8 * 4)
    parts = probe.run(both, both, **options)
    np.testing.assert_array_equal(parts.rank, whole.rank)


def test_equal_logits_and_images_that_cannot_be_read_are_wrong():
    linear = Linear(weights=np.zeros((2, 3), np.float32), bias=np.zeros(3, np.float32))
    x = np.float32([[1, 2], [np.nan, 0]])
    rank = classify(x, np.array([0, 1]), linear, mesh=mesh_of(2))
    assert rank[0] == 2  # all logits are equal: the others come first
    assert rank[1] >= 5  # not even among the best five of three

    both = rows()
    train = labelled(both.labels[:TRAIN], classes=CLASSES, broken=(3, 5))
    test = labelled(both.labels[:TRAIN], classes=CLASSES, broken=(3, 4))
    protocol = Lbfgs(regularisation=1e-4)
    found = LinearProbe(train=train, test=test, protocol=protocol).run(towers_of(both.x))
    assert found.samples["top5"].values[[3, 4]].tolist() == [0, 0]
    kept = np.setdiff1d(np.arange(TRAIN), (3, 5))
    model = sklearn_probe(both.x[kept], both.labels[kept], 1e-4)
    right = model.predict(both.x[:TRAIN]) == both.labels[:TRAIN]
    right[[3, 4]] = False
    np.testing.assert_array_equal(found.samples["top1"].values, right)


def test_refused():
    with pytest.raises(UsageError, match="they differ first in class 1: 'class 1' and 'other'"):
        names = ("class 0", "other")
        test = labelled([0, 1], classes=2)
        sets(train=test, test=type(test)(source=test.source, labels=test.labels, class_names=names))
    with pytest.raises(UsageError, match="choose one of embed, pooled"):
        sets(features="logits")
    evaluator, x = sets(Lbfgs(validation_share=0.01))
    with pytest.raises(UsageError, match=r"validation_share=0\.01 .* is none"):
        evaluator.run(towers_of(x))
