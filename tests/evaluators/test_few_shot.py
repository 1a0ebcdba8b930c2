"""Few-shot: which images are drawn, known answers, scikit-learn's on the same draws."""

import numpy as np
import pytest
from labelled_rows import blobs, labelled, towers_of
from sklearn.linear_model import LogisticRegression

from nlip_jax.errors import UsageError
from nlip_jax.evaluators.few_shot import FewShot
from nlip_jax.evaluators.linear_probe import Lbfgs
from nlip_jax.evaluators.probe_rows import draw_shots

CLASSES, TRAIN, TEST = 4, 60, 81


def sets(**fields):
    x, labels = blobs(TRAIN + TEST, classes=CLASSES, noise=0.8)
    train = labelled(labels[:TRAIN], classes=CLASSES)
    test = labelled(labels[TRAIN:], first=TRAIN, classes=CLASSES)
    defaults = {"num_shots": (4, 1), "num_seeds": 2, "probe": Lbfgs(regularisation=0.1)}
    return FewShot(**({"train": train, "test": test} | defaults | fields)), x, labels


def test_draws():
    labels = np.repeat([0, 1, 3], 9)
    for seed in (0, 1):
        one, two = (draw_shots(labels, shots=k, seed=seed) for k in (1, 2))
        assert labels[two].tolist() == [0, 0, 1, 1, 3, 3]
        assert set(one) < set(two)
        others = draw_shots(labels, shots=4, seed=seed, skip=2)
        assert len(others) == 12 and not set(others) & set(two)
    drawn = [draw_shots(labels, shots=2, seed=seed).tolist() for seed in (0, 1)]
    assert drawn[0] != drawn[1]


def test_as_scikit_learn_on_the_same_draws():
    evaluator, x, labels = sets(seed=7)
    found = evaluator.run(towers_of(x))
    for shots in (1, 4):
        scores = []
        for seed in (7, 8):
            drawn = draw_shots(labels[:TRAIN], shots=shots, seed=seed)
            model = LogisticRegression(C=10, tol=1e-9, max_iter=5000)
            model.fit(np.float64(x[drawn]), labels[drawn])
            scores.append(model.score(x[TRAIN:], labels[TRAIN:]))
        assert found.metrics[f"{shots}_shots/top1"] == pytest.approx(np.mean(scores), abs=1e-9)
        assert found.metrics[f"{shots}_shots/top1_std"] == pytest.approx(np.std(scores), abs=1e-9)
    assert next(iter(found.metrics)) == "1_shots/top1" and found.headline == "4_shots/top1"
    assert found.exhibits[0].points == tuple(
        (float(shots), found.metrics[f"{shots}_shots/top1"]) for shots in (1, 4)
    )
    assert found.samples["4_shots/top1"].values.mean() == pytest.approx(np.mean(scores))


def test_the_same_on_any_mesh():
    evaluator, x, _ = sets()
    found = [evaluator.run(towers_of(x, devices=n)) for n in (1, 8)]
    assert found[1].metrics == pytest.approx(found[0].metrics, abs=1e-6)


def test_a_regularisation_chosen_on_other_images():
    evaluator, x, _ = sets(probe=Lbfgs(), num_shots=(2,), num_seeds=1)
    found = evaluator.run(towers_of(x))
    assert 0.6 < found.metrics["2_shots/top1"] <= 1


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"num_shots": (1, 16)}, r"'class 0' has 15 training images \(4 classes have too few\)"),
        ({"num_shots": (12,), "probe": Lbfgs()}, "12 shots and 4 to choose the regularisation on"),
        ({"num_shots": ()}, r"num_shots=\(\)"),
        ({"num_shots": (0, 1)}, "from 1 on"),
        ({"num_seeds": 0}, "num_seeds=0"),
        ({"features": "text"}, "choose one of embed, pooled"),
    ],
)
def test_refused(fields, message):
    with pytest.raises(UsageError, match=message):
        sets(**fields)
