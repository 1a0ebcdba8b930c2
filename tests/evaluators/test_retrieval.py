"""Retrieval: models whose answers are known, several captions an image, ties, and no numbers."""

import numpy as np
import pytest
from fakes import Numbered, normal, towers

from nlip_jax.evaluators.retrieval import Retrieval, ranks


def by_hand(scores: np.ndarray, right: list[set[int]]) -> list[int]:
    """Wrong candidates that do not score below the best right one, one query at a time."""
    found = []
    for query, wanted in enumerate(right):
        best = max(scores[query, j] for j in wanted)
        wrong = [j for j in range(scores.shape[1]) if j not in wanted]
        found.append(sum(not scores[query, j] < best for j in wrong))
    return found


OWNERS = tuple(i for i in range(13) for _ in range(1 + i % 3))  # 1, 2 or 3 captions an image


def run(image_table, text_table, owners=OWNERS, num_images=13) -> dict[str, float]:
    return Retrieval(source=Numbered(num_images, owners)).run(towers(image_table, text_table))


def test_a_perfect_model_finds_everything():
    table = normal(13, 32)
    results = run(table, table[list(OWNERS)])
    assert set(results.values()) == {1.0}
    assert results.keys() == {
        f"{way}/{name}"
        for way in ("image_to_text", "text_to_image")
        for name in ("recall@1", "recall@5", "recall@10", "median_rank")
    } | {"mean_recall"}


def test_any_model_is_scored_as_by_hand():
    images, texts = normal(13, 4), normal(len(OWNERS), 4, seed=1)
    texts += 0.7 * images[list(OWNERS)]
    results = run(images, texts)
    scores = images @ texts.T
    captions = [{j for j, owner in enumerate(OWNERS) if owner == i} for i in range(13)]
    places = {
        "image_to_text": np.array(by_hand(scores, captions)),
        "text_to_image": np.array(by_hand(scores.T, [{owner} for owner in OWNERS])),
    }
    recalls = []
    for way, place in places.items():
        for k in (1, 5, 10):
            recalls.append(np.mean(place < k))
            assert results[f"{way}/recall@{k}"] == pytest.approx(recalls[-1])
        assert results[f"{way}/median_rank"] == np.median(place) + 1
    assert 0 < recalls[0] < 1
    assert results["mean_recall"] == pytest.approx(np.mean(recalls))


@pytest.mark.parametrize("value", [0.5, 0.0, np.nan])
def test_features_that_say_nothing_earn_nothing(value):
    """All to one point, all zero, or not a number: no right answer comes before a wrong one."""
    results = run(np.full((13, 4), value, np.float32), np.full((26, 4), value, np.float32))
    assert results["image_to_text/recall@10"] == results["text_to_image/recall@10"] == 0
    assert results["text_to_image/median_rank"] == 13  # after all twelve others
    assert results["mean_recall"] == 0


def test_one_pair_is_found():
    table = normal(1, 4)
    assert run(table, table, owners=(0,), num_images=1)["mean_recall"] == 1


def test_ranks():
    scores = np.array([[3.0, 2, 1], [3, 2, 1], [1, 1, 0], [1, 1, 0], [5, np.nan, 1]])
    is_right = np.array([[1, 0, 0], [0, 1, 1], [1, 0, 0], [1, 1, 0], [0, 0, 1]], bool)
    np.testing.assert_array_equal(ranks(scores, is_right), [0, 1, 1, 0, 1])


def test_what_cannot_be_read_is_wrong_and_spoils_nothing_else():
    """One image and one caption of another have no features; all else is found as before."""
    images, texts = normal(13, 32), normal(13, 32)[list(OWNERS)]
    images[4], texts[OWNERS.index(5)] = np.nan, np.nan
    results = run(images, texts)
    assert results["image_to_text/recall@1"] == pytest.approx(12 / 13)
    lost = OWNERS.count(4) + 1
    assert results["text_to_image/recall@10"] == pytest.approx(1 - lost / len(OWNERS))


def test_a_query_without_a_right_answer_comes_last():
    assert ranks(np.ones((1, 4)), np.zeros((1, 4), bool)).tolist() == [4]
