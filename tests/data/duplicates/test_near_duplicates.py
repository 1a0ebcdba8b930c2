"""Equal and nearly equal captions, against a comparison of all pairs."""

import itertools

import numpy as np
import pyarrow as pa
import pytest

from nlip_jax.data.duplicates import groups
from nlip_jax.data.duplicates.groups import first_of_equals, group_texts
from nlip_jax.data.duplicates.signatures import PLACES, signatures, similarity, text_numbers
from nlip_jax.data.duplicates.words import MAX_CHARACTERS, words_of


def split(texts) -> list[list[str]]:
    words = words_of(pa.array(texts, pa.string()))
    flat = [words.distinct[place] for place in words.places]
    return [flat[a:b] for a, b in itertools.pairwise(words.starts.tolist())]


def jaccard(a: list[str], b: list[str]) -> float:
    """Of words and pairs of neighbours, by definition."""
    one, other = ({*w, *itertools.pairwise(w)} for w in (a, b))
    return len(one & other) / len(one | other)


def components(texts: list[str], *, least: float) -> list[int]:
    """The first of the group of each text: all pairs compared, one after the other."""
    words, first = split(texts), list(range(len(texts)))
    for i, j in itertools.combinations(range(len(texts)), 2):
        if words[i] == words[j] or jaccard(words[i], words[j]) >= least:
            low, high = sorted((first[i], first[j]))
            first = [low if one == high else one for one in first]
    return first


def grouped(texts, tmp_path, *, least: float = 0.7):
    words = words_of(pa.array(texts, pa.string()))
    parts = np.array_split(signatures(words), 3)
    file = tmp_path / "signatures"
    found = group_texts(text_numbers(words), iter(parts), least=least, file=file)
    assert not file.exists()
    return found


@pytest.fixture(scope="module")
def texts() -> list[str]:
    """Random captions; some are repeated, and some changed in a word of twenty."""
    rng = np.random.default_rng(0)
    vocabulary = [f"{a}{b}" for a in "bcdfgklmnprst" for b in ("a", "e", "io", "ul", "ar")]
    made = [" ".join(rng.choice(vocabulary, rng.integers(18, 24))) for _ in range(150)]
    for i in range(0, 60, 3):
        made.append(made[i].upper() + "!")
        words = made[i].split()
        words[len(words) // 2] = "changed"
        made.append(" ".join(words))
    return [made[i] for i in rng.permutation(len(made))]


def test_words_have_no_case_no_width_and_no_punctuation():
    assert split(["A photo, of: two CATS!", "\uff21 \u00c9t\u00e9", "-- ", "", None]) == [
        ["a", "photo", "of", "two", "cats"],
        ["a", "\u00e9t\u00e9"],
        ["--"],
        [""],
        [""],
    ]
    chinese = "\u4e00\u53ea\u732b"
    assert split([chinese, "x" * 9000]) == [[chinese], ["x" * MAX_CHARACTERS]]


def test_numbers_tell_sequences_of_words_apart():
    texts = ["a red cat", "A red, cat", "a cat red", "a red", "cat", "a red cat cat", "redcat a"]
    numbers = text_numbers(words_of(pa.array(texts)))
    assert numbers[0] == numbers[1]
    assert len(set(numbers.tolist())) == len(texts) - 1
    again = text_numbers(words_of(pa.array(texts[3:])))
    assert (again == numbers[3:]).all()  # whatever stands beside a text


def test_signatures_estimate_the_similarity_of_word_sets(texts):
    words = words_of(pa.array(texts))
    found, each = signatures(words), split(texts)
    assert found.shape == (len(texts), PLACES) and found.dtype == np.uint8
    pairs = list(itertools.combinations(range(60), 2))
    a, b = np.array(pairs).T
    exact = np.array([jaccard(each[i], each[j]) for i, j in pairs])
    error = similarity(found[a], found[b]) - exact
    assert abs(error.mean()) < 0.01 and error.std() < 0.07
    alone = np.concatenate([signatures(words_of(pa.array([text]))) for text in texts[:20]])
    assert (alone == found[:20]).all()


def test_groups_are_those_of_all_pairs(texts, tmp_path):
    found = grouped(texts, tmp_path)
    assert found.first.tolist() == components(texts, least=0.7)
    assert found.num_equal == len(texts) - len({tuple(words) for words in split(texts)})
    assert len(set(found.first.tolist())) == 150


def test_only_equal_texts(texts, tmp_path):
    found = grouped(texts, tmp_path, least=1.01)
    assert found.first.tolist() == components(texts, least=1.01)
    assert len(set(found.first.tolist())) == 170


def test_others_join_texts_that_are_not_similar(tmp_path):
    words = [f"w{i}" for i in range(30)]
    chain = [" ".join(words[i : i + 24]) for i in range(0, 7, 2)]
    assert jaccard(chain[0].split(), chain[-1].split()) < 0.7
    texts = [*chain, "something else", chain[1]]
    assert grouped(texts, tmp_path).first.tolist() == [0, 0, 0, 0, 4, 0]


def test_small_parts_change_nothing(texts, tmp_path, monkeypatch):
    whole = grouped(texts, tmp_path)
    monkeypatch.setattr(groups, "_PART", 32)
    monkeypatch.setattr(groups, "_READ", 8)
    monkeypatch.setattr(groups, "_PAIRS", 4)
    small = grouped(texts, tmp_path)
    assert (small.first == whole.first).all() and small.num_equal == whole.num_equal


def test_first_of_equals():
    rng = np.random.default_rng(0)
    keys = rng.integers(0, 50, 200).astype(np.uint64) << np.uint64(57)
    expected = [keys.tolist().index(key) for key in keys.tolist()]
    assert first_of_equals(keys).tolist() == expected
    assert len(first_of_equals(keys[:0])) == 0


def test_few_texts(tmp_path):
    assert grouped(["one"], tmp_path).first.tolist() == [0]
    assert grouped(["one", "One."], tmp_path).first.tolist() == [0, 0]
    assert grouped(["one", "two"], tmp_path).first.tolist() == [0, 1]


def test_one_key_of_many_texts_costs_no_more_than_its_texts(tmp_path):
    shared = " ".join(f"word{i}" for i in range(40))
    texts = [f"{shared} number{i}" for i in range(3000)]
    assert set(grouped(texts, tmp_path).first.tolist()) == {0}


def test_missing_signatures_are_noticed(texts, tmp_path):
    words = words_of(pa.array(texts))
    with pytest.raises(ValueError, match="signatures of"):
        group_texts(
            text_numbers(words), [signatures(words)[:-1]], least=0.7, file=tmp_path / "signatures"
        )
    assert not list(tmp_path.iterdir())
