"""`benchmark evaluation` at toy size; the times say nothing there, what both sides find does."""

import builtins

import pytest

from nlip_jax.commands.benchmarks import evaluation
from nlip_jax.commands.benchmarks.evaluation_setting import Sizes
from nlip_jax.errors import UsageError

TOY = Sizes(
    dim=8,
    classes=5,
    noise=1.0,
    images=150,
    test_images=40,
    templates=3,
    queries=12,
    captions_per_image=2,
    token_images=4,
    token_captions=6,
    image_tokens=3,
    text_tokens=2,
    token_dim=4,
    sklearn_iterations=100,
    kmeans_iterations=3,
    neighbours=5,
)


def test_both_sides_find_the_same(capsys):
    numbers = evaluation.run(TOY)
    of = {name.removeprefix("evaluation/"): value for name, value in numbers.items()}
    assert all(value > 0 for name, value in of.items() if name.endswith("seconds"))
    assert of["linear_probe/objective"] == pytest.approx(
        of["linear_probe/sklearn/objective"], rel=1e-5
    )
    assert of["linear_probe/sklearn_excess"] == pytest.approx(0, abs=1e-5)
    assert of["linear_probe/accuracy"] == of["linear_probe/sklearn/accuracy"]
    assert of["knn/top1"] == of["knn/sklearn/top1"]
    assert of["kmeans/objective"] == pytest.approx(of["kmeans/sklearn/objective"], rel=1e-5)
    assert of["captions/cider"] == pytest.approx(of["captions/pycocoevalcap/cider"], rel=1e-6)
    assert of["zero_shot/top1"] > 0.4 and of["retrieval/mean_recall"] > 0.2  # chance: 0.2, 0.4
    assert "clusters: " in capsys.readouterr().err


def test_the_reference_is_missing(monkeypatch):
    imported = builtins.__import__

    def without(name, *rest, **named):
        if name == "sklearn":
            raise ImportError(name)
        return imported(name, *rest, **named)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(UsageError, match=r"pip install nlip_jax\[eval\]"):
        evaluation.run(TOY)
