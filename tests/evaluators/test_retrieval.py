"""Retrieval: models whose answers are known, several captions an image, ties, and no numbers."""

import dataclasses

import numpy as np
import pytest
from fakes import Numbered, normal, towers

from nlip_jax.data.sources.prompted import Prompt
from nlip_jax.evaluators.recalls import mean_of, recalls, right_answers
from nlip_jax.evaluators.retrieval import Captions, Retrieval
from nlip_jax.evaluators.retrieval_examples import choose
from nlip_jax.outcome import Outcome, Samples


def by_hand(scores: np.ndarray, right: list[set[int]]) -> list[int]:
    """Wrong candidates that do not score below the best right one, one query at a time."""
    found = []
    for query, wanted in enumerate(right):
        best = max(scores[query, j] for j in wanted)
        wrong = [j for j in range(scores.shape[1]) if j not in wanted]
        found.append(sum(not scores[query, j] < best for j in wrong))
    return found


OWNERS = tuple(i for i in range(13) for _ in range(1 + i % 3))  # 1, 2 or 3 captions an image
SET = Numbered(13, OWNERS)
WAYS = ("image_to_text", "text_to_image")
NAMES = ("recall@1", "recall@5", "recall@10", "median_rank")


def run(image_table, text_table, owners=OWNERS, num_images=13, devices=8, **fields) -> Outcome:
    evaluator = Retrieval(source=Numbered(num_images, owners), **fields)
    return evaluator.run(towers(image_table, text_table, devices=devices))


def noisy(seed=1):
    images = normal(13, 4)
    return images, normal(len(OWNERS), 4, seed=seed) + 0.7 * images[list(OWNERS)]


def expected(images, texts) -> dict[str, float]:
    scores = images.astype(np.float64) @ texts.T
    captions = [{j for j, owner in enumerate(OWNERS) if owner == i} for i in range(13)]
    places = {
        "image_to_text": np.array(by_hand(scores, captions)),
        "text_to_image": np.array(by_hand(scores.T, [{owner} for owner in OWNERS])),
    }
    found = {}
    for way, place in places.items():
        found |= {f"{way}/recall@{k}": float(np.mean(place < k)) for k in (1, 5, 10)}
        found[f"{way}/median_rank"] = float(np.median(place) + 1)
    recall = [value for name, value in found.items() if "recall@" in name]
    return found | {"mean_recall": float(np.mean(recall))}


def test_a_perfect_model_finds_everything():
    table = normal(13, 32)
    results = run(table, table[list(OWNERS)]).metrics
    assert set(results.values()) == {1.0}
    assert results.keys() == {f"{way}/{name}" for way in WAYS for name in NAMES} | {"mean_recall"}


@pytest.mark.parametrize("devices", [1, 3, 8])
def test_any_model_is_scored_as_by_hand(devices):
    images, texts = noisy()
    outcome = run(images, texts, devices=devices)
    assert outcome.metrics == pytest.approx(expected(images, texts))
    assert 0 < outcome.metrics["image_to_text/recall@1"] < 1
    assert outcome.headline == "mean_recall"


def test_samples_are_what_the_metrics_are_means_of():
    outcome = run(*noisy())
    assert outcome.samples.keys() == {n for n in outcome.metrics if "recall" in n}
    for name, samples in outcome.samples.items():
        assert samples.values.mean() == pytest.approx(outcome.metrics[name], abs=1e-12), name
    groups = outcome.samples["text_to_image/recall@1"].groups
    assert groups.tolist() == list(OWNERS)
    assert set(outcome.samples["mean_recall"].groups) == set(range(13))


@pytest.mark.parametrize("value", [0.5, 0.0, np.nan])
def test_features_that_say_nothing_earn_nothing(value, monkeypatch):
    """All to one point, all zero, or not a number: no right answer comes before a wrong one."""
    if np.isnan(value):  # as if nothing could be read
        monkeypatch.setattr("nlip_jax.evaluators.base._is_broken", no_row_is_broken)
    results = run(
        np.full((13, 4), value, np.float32), np.full((26, 4), value, np.float32)
    ).metrics
    assert results["image_to_text/recall@10"] == results["text_to_image/recall@10"] == 0
    assert results["text_to_image/median_rank"] == 13  # after all twelve others
    assert results["mean_recall"] == 0


def no_row_is_broken(features, *, missing):
    return np.zeros(len(missing), bool)


def test_one_pair_is_found():
    table = normal(1, 4)
    assert run(table, table, owners=(0,), num_images=1).metrics["mean_recall"] == 1


def test_what_cannot_be_read_is_wrong_and_spoils_nothing_else(monkeypatch):
    """One image and one caption of another have no features; all else is found as before."""
    monkeypatch.setattr("nlip_jax.evaluators.base._is_broken", no_row_is_broken)
    images, texts = normal(13, 32), normal(13, 32)[list(OWNERS)]
    images[4], texts[OWNERS.index(5)] = np.nan, np.nan
    results = run(images, texts).metrics
    assert results["image_to_text/recall@1"] == pytest.approx(12 / 13)
    lost = OWNERS.count(4) + 1
    assert results["text_to_image/recall@10"] == pytest.approx(1 - lost / len(OWNERS))


# --- parts ----------------------------------------------------------------------------------------


def test_right_answers():
    found = right_answers(np.array([2, 0, 2, 2]), np.array([7, 8, 5, 6]), num_queries=4)
    assert found.tolist() == [[8, -1, -1], [-1, -1, -1], [7, 5, 6], [-1, -1, -1]]
    assert right_answers(np.zeros(0, int), np.zeros(0, int), num_queries=2).tolist() == [[-1]] * 2


def test_recalls_of_ranks():
    metrics, samples = recalls("a", np.array([0, 1, 4, 5, 9, 10]))
    assert metrics == {
        "a/recall@1": pytest.approx(1 / 6),
        "a/recall@5": pytest.approx(3 / 6),
        "a/recall@10": pytest.approx(5 / 6),
        "a/median_rank": 5.5,
    }
    assert samples["a/recall@5"].values.tolist() == [1, 1, 1, 0, 0, 0]


def test_the_mean_of_means_is_the_mean_of_its_samples():
    parts = [Samples(values=np.arange(float(n))) for n in (3, 5, 1)]
    mean = mean_of(parts, [np.arange(3), np.arange(5), np.zeros(1, int)])
    assert mean.values.mean() == pytest.approx(np.mean([1.0, 2.0, 0.0]))
    assert mean.groups.tolist() == [0, 1, 2, 0, 1, 2, 3, 4, 0]


# --- prompts --------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class WordFirst(Numbered):
    def caption(self, example_id, epoch=0):
        return str(example_id)


def test_each_way_has_its_own_prompt():
    """Caption i reads "i" in the table as it is, and "i 2" with the suffix: that of row 2."""
    table = normal(13, 32)
    source = WordFirst(13, tuple(range(13)))
    outcome = Retrieval(source=source, text_to_image=Prompt(suffix="2")).run(towers(table, table))
    assert outcome.metrics["image_to_text/recall@1"] == 1
    assert outcome.metrics["text_to_image/recall@1"] == pytest.approx(1 / 13)
    outcome = Retrieval(source=source, image_to_text=Prompt(suffix="2")).run(towers(table, table))
    assert outcome.metrics["image_to_text/recall@1"] == 0  # all captions are alike
    assert outcome.metrics["text_to_image/recall@1"] == 1


def test_a_prompt_stands_around_the_caption():
    assert Prompt(prefix="a good photo of", suffix="It is ugly.")("a dog.") == (
        "a good photo of a dog. It is ugly."
    )
    assert Prompt()("a dog.") == "a dog."


# --- languages ------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Translated(Numbered):
    """Captions whose numbers begin elsewhere in the table."""

    first: int = 0

    def caption(self, example_id, epoch=0):
        return f"number {self.first + example_id}"


def test_languages_share_images_and_their_mean_stands_alone():
    images, texts = noisy()
    _, others = noisy(seed=2)
    embedded = []

    def look_up(variables, image):
        embedded.append(image.shape)
        return {"image_embed": variables["image"][image[:, 0, 0, 0].astype(int)]}

    made = towers(images, np.concatenate([texts, others]), image_features=look_up)
    owners = np.array(OWNERS)
    languages = {
        "en": Captions(source=SET, owners=owners),
        "de": Captions(source=Translated(13, OWNERS, first=len(OWNERS)), owners=owners),
    }
    outcome = Retrieval(source=SET, languages=languages).run(made)
    each = {"en": expected(images, texts), "de": expected(images, others)}
    assert each["en"] != each["de"]
    for language, values in each.items():
        got = {n.removeprefix(f"{language}/"): v for n, v in outcome.metrics.items() if
               n.startswith(f"{language}/")}
        assert got == pytest.approx(values)
    for name in each["en"]:
        mean = np.mean([values[name] for values in each.values()])
        assert outcome.metrics[name] == pytest.approx(mean)
    for name, samples in outcome.samples.items():
        assert samples.values.mean() == pytest.approx(outcome.metrics[name]), name
    assert len(embedded) == 1  # traced once, and images are embedded once
    assert [shown.title for shown in outcome.exhibits] == ["Image to text", "Text to image"]


# --- examples to look at --------------------------------------------------------------------------


def test_examples_show_what_went_well_and_what_went_wrong():
    images, texts = noisy()
    scores = images @ texts.T
    to_text, to_image = run(images, texts, examples=6).exhibits
    for exhibit in (to_text, to_image):
        assert len(exhibit.queries) == 6
        good = [query.note == "rank 1" for query in exhibit.queries]
        assert 0 < sum(good) < 6
        for query, is_good in zip(exhibit.queries, good, strict=True):
            assert len(query.answers) == 5
            assert query.answers[0].is_right == is_good
            found = [answer.score for answer in query.answers]
            assert found == sorted(found, reverse=True)
    for query in to_text.queries:
        image = int(query.query.image[0, 0, 0])
        caption = int(query.answers[0].text.split()[1])
        assert caption == scores[image].argmax()
        assert query.answers[0].is_right == (OWNERS[caption] == image)
    for query in to_image.queries:
        caption = int(query.query.text.split()[1])
        assert query.answers[0].image[0, 0, 0] == scores[:, caption].argmax()
    assert run(images, texts, examples=0).exhibits == ()


def test_the_choice_of_examples_is_balanced_and_always_the_same():
    rank = np.array([0, 3, 0, 0, 9, 0, 0, 0, 1, 0])
    rows = choose(rank, count=4)
    assert (rank[rows] > 0).sum() == 2
    assert rows.tolist() == choose(rank, count=4).tolist() == sorted(set(rows.tolist()))
    assert choose(rank, count=99).tolist() == list(range(10))
    assert choose(np.zeros(5, int), count=4).tolist() == [0, 1, 2, 3]
    assert (rank[choose(rank, count=9)] > 0).sum() == 3
