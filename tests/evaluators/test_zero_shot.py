"""Zero-shot classification: known answers, ensembles of prompts, ties, what is shown."""

import jax.numpy as jnp
import numpy as np
import pytest
from fakes import Numbered, normal, towers

from nlip_jax.data.failures import ReadError
from nlip_jax.data.labelled import LabelledSet
from nlip_jax.data.source import Place
from nlip_jax.errors import UsageError
from nlip_jax.evaluators import zero_shot as module
from nlip_jax.evaluators.summary import averages
from nlip_jax.evaluators.zero_shot import ZeroShot, accuracies, confusions, per_class, prompts_of
from nlip_jax.methods.similarities import TOKEN_MAX
from nlip_jax.outcome import Confusion, Outcome

CLASSES = 6
LABELS = np.array([0, 1, 2, 3, 4, 5, 5, 5, 5, 4, 3])  # uneven classes, an uneven last batch
# A class is named by its number, and a template adds to it: prompt 10 t + c.
TEMPLATES = ("{}", "1{}", "2{}")


def zero_shot(labels=LABELS, names=None, templates=TEMPLATES, **fields) -> ZeroShot:
    labelled = LabelledSet(
        source=Numbered(num_images=len(labels)),
        labels=labels,
        class_names=names or tuple(str(c) for c in range(CLASSES)),
        templates=templates,
    )
    return ZeroShot(labelled=labelled, **fields)


def prompt_table(per_template: list[np.ndarray]) -> np.ndarray:
    """Row 10 t + c is the embedding of class c in template t."""
    table = np.zeros((30, per_template[0].shape[1]), np.float32)
    for t, embeddings in enumerate(per_template):
        table[10 * t : 10 * t + CLASSES] = embeddings
    return table


def ranks(scores: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Classes with a score at least as high as the right one's; a NaN is below all."""
    scores = np.where(np.isnan(scores), -np.inf, scores)
    right = scores[np.arange(len(labels)), labels][:, None]
    has_score = right[:, 0] > -np.inf
    return np.where(has_score, (scores >= right).sum(1) - 1, scores.shape[1])


@pytest.mark.parametrize("ensemble", ["embeddings", "similarities", "none"])
def test_a_perfect_model(ensemble):
    classes = normal(CLASSES, 16)
    found = zero_shot(ensemble=ensemble).run(
        towers(classes[LABELS], prompt_table([classes] * 3))
    )
    assert found.metrics == pytest.approx({"top1": 1, "top5": 1, "mean_per_class": 1})
    accuracy, mistakes = found.exhibits
    assert accuracy.counts.tolist() == np.bincount(LABELS).tolist()
    assert accuracy.accuracy.tolist() == [1] * CLASSES
    assert mistakes.pairs == ()


def test_ensembles_differ_as_documented():
    images = normal(len(LABELS), 3, seed=1)
    # Embeddings of other lengths than 1 count alike in the mean of embeddings.
    prompts = [normal(CLASSES, 3, seed=t) * (1 + t) for t in range(3)]
    mean = np.mean([p / np.linalg.norm(p, axis=1, keepdims=True) for p in prompts], 0)
    scores = {
        "none": images @ prompts[0].T,
        "similarities": np.mean([images @ p.T for p in prompts], 0),
        "embeddings": images @ (mean / np.linalg.norm(mean, axis=1, keepdims=True)).T,
    }
    seen = set()
    for ensemble, expected in scores.items():
        found = zero_shot(ensemble=ensemble).run(towers(images, prompt_table(prompts)))
        metrics, samples = accuracies(ranks(expected, LABELS), LABELS)
        assert found.metrics == metrics, ensemble
        for name, sample in samples.items():
            assert found.samples[name].values.tolist() == sample.values.tolist()
            assert sample.values.mean() == pytest.approx(metrics[name])
        seen.add(tuple(metrics.values()))
    assert len(seen) > 1


def test_similarities_of_tokens_can_be_averaged():
    """Two tokens each; the first of every image and text says the class, the second nothing."""
    classes = normal(CLASSES, 16)

    says = np.float32([1, 0])[None, :, None]

    def image_features(variables, image):
        return {"image_tokens": says * variables["image"][image[:, 0, 0, 0]][:, None]}

    def text_features(variables, tokens):
        pieces = says * variables["text"][tokens[:, 0]][:, None]
        return {"text_tokens": pieces, "text_mask": jnp.ones(pieces.shape[:2], bool)}

    found = zero_shot(ensemble="similarities").run(
        towers(
            classes[LABELS],
            prompt_table([classes] * 3),
            similarity=TOKEN_MAX,
            image_features=image_features,
            text_features=text_features,
        )
    )
    assert found.metrics["top1"] == 1


def test_few_prompts_at_a_time_are_the_same(monkeypatch):
    images = normal(len(LABELS), 5, seed=1)
    model = towers(images, prompt_table([normal(CLASSES, 5, seed=t) for t in range(3)]))
    whole = zero_shot().run(model)
    monkeypatch.setattr(module, "_MAX_PROMPTS", 7)  # two classes of three prompts
    parts = zero_shot().run(model)
    assert parts.metrics == whole.metrics
    for name, sample in whole.samples.items():
        assert parts.samples[name].values.tolist() == sample.values.tolist()


def test_accuracies():
    # Right, second, a tie that counts as second, last, right.
    scores = np.array([[3.0, 2, 1], [3, 2, 1], [1, 1, 0], [1, 1, 0], [0, 0, 9]])
    labels = np.array([0, 1, 0, 2, 2])
    metrics, samples = accuracies(ranks(scores, labels), labels)
    assert metrics["top1"] == pytest.approx(2 / 5)
    assert metrics["mean_per_class"] == pytest.approx(np.mean([1 / 2, 0, 1 / 2]))
    assert metrics["top5"] == 1
    assert samples["mean_per_class"].values.mean() == pytest.approx(metrics["mean_per_class"])


@pytest.mark.parametrize("value", [1.0, 0.0])
def test_equal_scores_earn_nothing(value):
    same = np.full((8, 3), value, np.float32)
    found = zero_shot(ensemble="none", labels=np.arange(CLASSES)).run(
        towers(same, prompt_table([same[:CLASSES]] * 3))
    )
    assert found.metrics["top1"] == 0 and found.metrics["mean_per_class"] == 0


def test_an_image_that_cannot_be_read_earns_nothing():
    class Holed(Numbered):
        def picture(self, image_id):
            if image_id == 2:
                raise ReadError("truncated_image", "half of it")
            return super().picture(image_id)

        def place(self, image_id):
            return Place("somewhere", str(image_id))

    classes = normal(2, 8)
    labels = np.array([0, 1, 1, 0])
    labelled = LabelledSet(
        source=Holed(num_images=4), labels=labels, class_names=("0", "1"), templates=("{}",)
    )
    found = ZeroShot(labelled=labelled).run(towers(classes[labels], classes))
    assert found.metrics == pytest.approx({"top1": 3 / 4, "top5": 3 / 4, "mean_per_class": 3 / 4})


def test_classes_of_one_name_are_one_to_a_model():
    """As the argmax of published evaluations: the first is found, the others never are."""
    classes = normal(3, 8)
    labels = np.array([0, 1, 2, 1])
    embeddings = np.stack([classes[0], classes[1], classes[0]])
    names = ("0", "1", "0")
    found = zero_shot(labels=labels, names=names, templates=("{}",)).run(
        towers(embeddings[labels], embeddings)
    )
    assert found.samples["top1"].values.tolist() == [1, 1, 0, 1]
    assert found.samples["top5"].values.tolist() == [1, 1, 1, 1]
    assert found.exhibits[1].pairs == (Confusion(true="0", predicted="0", count=1, share=1.0),)


def test_what_is_shown():
    names = ("a", "b", "c", "d")
    labels = np.array([0, 0, 0, 1, 1, 2, 2])
    rank = np.array([0, 1, 2, 1, 0, 1, 3])
    best = np.array([[0, 1], [1, 0], [1, 2], [2, 1], [1, 0], [2, 0], [-1, -1]])
    shown = per_class(rank, labels, names)
    assert shown.counts.tolist() == [3, 2, 2, 0]
    assert shown.accuracy[:3].tolist() == [1 / 3, 1 / 2, 0] and np.isnan(shown.accuracy[3])
    # The right class stands first in a tie: the other one is what it was taken for.
    assert confusions(rank, best, labels, names).pairs == (
        Confusion(true="a", predicted="b", count=2, share=2 / 3),
        Confusion(true="b", predicted="c", count=1, share=1 / 2),
        Confusion(true="c", predicted="a", count=1, share=1 / 2),
    )
    assert confusions(rank[:1], best[:1, :1], labels[:1], names[:1]).pairs == ()


def test_prompts_may_have_braces():
    assert prompts_of(["{x}"], ["{} {y}", "a {}"]) == ["{x} {y}", "a {x}"]


def test_headline():
    classes = normal(CLASSES, 4)
    model = towers(classes[LABELS], prompt_table([classes] * 3))
    assert zero_shot(metric="mean_per_class").run(model).headline == "mean_per_class"
    assert zero_shot().run(model).headline == "top1"


def test_averages():
    def outcome(headline, **metrics):
        return Outcome(metrics=metrics, headline=headline)

    outcomes = {
        "zero_shot/a": outcome("top1", top1=0.5, mean_per_class=0.0),
        "zero_shot/b": outcome("mean_per_class", top1=0.0, mean_per_class=1.0),
        "zero_shot/c": outcome("", top1=0.0),
        "retrieval/a": outcome("mean_recall", mean_recall=0.25),
    }
    assert averages(outcomes) == {"zero_shot/average/headline": 0.75}


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"ensemble": "mean"}, r"'mean': choose one of embeddings, similarities, none"),
        ({"metric": "top3"}, r"'top3': choose one of top1, top5, mean_per_class"),
        ({"templates": ()}, "needs templates"),
    ],
)
def test_wrong_options(fields, words):
    with pytest.raises(UsageError, match=words):
        zero_shot(**fields)
