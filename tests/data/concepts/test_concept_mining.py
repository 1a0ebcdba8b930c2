"""Counting texts in bounded memory, and which concepts make the vocabulary."""

import random
from collections import Counter

import pytest

from nlip_jax.data.concepts import RuleTagger, mine
from nlip_jax.data.concepts.counting import Counted, TextCounts
from nlip_jax.errors import UsageError


def mine_words(captions, folder, **fields):
    defaults = {"min_count": 1, "min_share": 0.0, "max_size": 100}
    tagger = RuleTagger(max_words=1)
    return mine(captions, tagger=tagger, folder=folder / "parts", **(defaults | fields))


@pytest.mark.parametrize("limit", [1, 7, 1000])
def test_sums_are_exact_however_little_fits_into_memory(tmp_path, limit):
    draw = random.Random(0)
    rounds = [{f"text {draw.randrange(40)} \u00e9" for _ in range(9)} for _ in range(60)]
    counts = TextCounts(tmp_path / "parts", limit=limit)
    for texts in rounds:
        counts.add(texts)
    assert (tmp_path / "parts").exists() == (limit < 40)
    expected = Counter(text for texts in rounds for text in texts)
    for _ in range(2):  # looking changes nothing
        assert list(counts.sums()) == [Counted(t, expected[t]) for t in sorted(expected)]
    counts.close()
    assert not (tmp_path / "parts").exists()


def test_files_of_a_run_that_was_killed_count_for_nothing(tmp_path):
    killed = TextCounts(tmp_path / "parts", limit=1)
    killed.add({"ghost"})
    counts = TextCounts(tmp_path / "parts", limit=1)
    counts.add({"here"})
    assert list(counts.sums()) == [Counted("here", 1)]


def test_a_caption_counts_a_concept_once_and_equals_are_sorted(tmp_path):
    mined = mine_words(["a dog, a dog and dogs", "a cat", "a bird", "nothing at all"], tmp_path)
    assert mined.concepts == (Counted("bird", 1), Counted("cat", 1), Counted("dog", 1))
    assert mined.num_captions == 4
    assert not any(tmp_path.iterdir())


def test_thresholds_and_cap(tmp_path):
    captions = ["a dog"] * 5 + ["a cat"] * 4 + ["a bird"] * 3 + ["a horse"] * 3 + [""] * 5
    words = {
        (4, 0.0, 9): ["dog", "cat"],
        (1, 0.2, 9): ["dog", "cat"],
        (1, 0.201, 9): ["dog"],  # of 20 captions 5 at least
        (3, 0.0, 3): ["dog", "cat", "bird"],
        (1, 0.0, 1): ["dog"],
    }
    for (least, share, size), expected in words.items():
        mined = mine_words(captions, tmp_path, min_count=least, min_share=share, max_size=size)
        assert [item.text for item in mined.concepts] == expected


def test_the_order_of_captions_does_not_matter(tmp_path):
    captions = [f"a {a} {b}" for a in ("red", "tall") for b in ("dog", "cat", "bird")] * 3
    first = mine_words(captions, tmp_path)
    random.Random(0).shuffle(captions)
    assert mine_words(captions, tmp_path) == first


def test_captions_are_passed_over_once_and_never_kept(tmp_path):
    alive = Counter()

    class Caption(str):
        def __del__(self):
            alive["now"] -= 1

    def stream():
        for _ in range(500):
            alive["now"] += 1
            alive["most"] = max(alive["most"], alive["now"])
            yield Caption("a dog")

    assert mine_words(stream(), tmp_path).concepts == (Counted("dog", 500),)
    assert alive["most"] < 5


@pytest.mark.parametrize("captions", [[], ["img_1.jpg"], ["a dog"]])
def test_nothing_frequent_enough(tmp_path, captions):
    with pytest.raises(UsageError, match=rf"named by 2 of the {len(captions)} captions: lower"):
        mine_words(captions, tmp_path, min_count=2)
    assert not any(tmp_path.iterdir())
