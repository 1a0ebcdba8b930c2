"""Zero-shot classification: known answers, ensembles of prompts, ties."""

import jax.numpy as jnp
import numpy as np
import pytest
from fakes import Numbered, normal, towers

from nlip_jax.errors import UsageError
from nlip_jax.evaluators.zero_shot import ZeroShot, accuracies
from nlip_jax.methods.similarities import TOKEN_MAX

CLASSES = 6
LABELS = np.array([0, 1, 2, 3, 4, 5, 5, 5, 5, 4, 3])  # uneven classes, an uneven last batch
# A class is named by its number, and a template adds to it: prompt 10 t + c.
TEMPLATES = ("{}", "1{}", "2{}")


def zero_shot(**fields) -> ZeroShot:
    defaults = {
        "source": Numbered(num_images=len(LABELS)),
        "labels": LABELS,
        "class_names": tuple(str(c) for c in range(CLASSES)),
        "templates": TEMPLATES,
    }
    return ZeroShot(**(defaults | fields))


def prompt_table(per_template: list[np.ndarray]) -> np.ndarray:
    """Row 10 t + c is the embedding of class c in template t."""
    table = np.zeros((30, per_template[0].shape[1]), np.float32)
    for t, embeddings in enumerate(per_template):
        table[10 * t : 10 * t + CLASSES] = embeddings
    return table


@pytest.mark.parametrize("ensemble", ["embeddings", "similarities", "none"])
def test_a_perfect_model(ensemble):
    classes = normal(CLASSES, 16)
    results = zero_shot(ensemble=ensemble).run(
        towers(classes[LABELS], prompt_table([classes] * 3))
    )
    assert results == {"top1": 1.0, "top5": 1.0, "mean_per_class": 1.0}


def test_ensembles_differ_as_documented():
    images = normal(len(LABELS), 3, seed=1)
    prompts = [normal(CLASSES, 3, seed=t) * (1 + t) for t in range(3)]
    mean = np.mean(prompts, 0)
    scores = {
        "none": images @ prompts[0].T,
        "similarities": np.mean([images @ p.T for p in prompts], 0),
        "embeddings": images @ (mean / np.linalg.norm(mean, axis=1, keepdims=True)).T,
    }
    found = {}
    for ensemble, expected in scores.items():
        results = zero_shot(ensemble=ensemble).run(towers(images, prompt_table(prompts)))
        assert results == accuracies(expected, LABELS), ensemble
        found[ensemble] = tuple(results.values())
    assert len(set(found.values())) > 1


def test_similarities_of_tokens_can_be_averaged():
    """Two tokens each; the first of every image and text says the class, the second nothing."""
    classes = normal(CLASSES, 16)

    says = np.float32([1, 0])[None, :, None]

    def image_features(params, image):
        return {"image_tokens": says * params["image"][image[:, 0, 0, 0]][:, None]}

    def text_features(params, tokens):
        pieces = says * params["text"][tokens[:, 0]][:, None]
        return {"text_tokens": pieces, "text_mask": jnp.ones(pieces.shape[:2], bool)}

    results = zero_shot(ensemble="similarities").run(
        towers(
            classes[LABELS],
            prompt_table([classes] * 3),
            similarity=TOKEN_MAX,
            image_features=image_features,
            text_features=text_features,
        )
    )
    assert results["top1"] == 1


def test_accuracies():
    scores = np.array([[3.0, 2, 1], [3, 2, 1], [1, 1, 0], [1, 1, 0], [0, 0, 9]])
    labels = np.array([0, 1, 0, 2, 2])
    # Right, second, a tie that counts as second, last, right.
    results = accuracies(scores, labels)
    assert results["top1"] == pytest.approx(2 / 5)
    assert results["mean_per_class"] == pytest.approx(np.mean([1 / 2, 0, 1 / 2]))
    assert results["top5"] == 1


@pytest.mark.parametrize("value", [1.0, np.nan])
def test_equal_scores_and_no_scores_earn_nothing(value):
    results = accuracies(np.full((4, 10), value), np.arange(4))
    assert results == {"top1": 0.0, "top5": 0.0, "mean_per_class": 0.0}


def test_an_unknown_ensemble():
    with pytest.raises(UsageError, match=r"'mean': choose one of embeddings, similarities, none"):
        zero_shot(ensemble="mean")
