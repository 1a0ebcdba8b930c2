"""The shipped table of WordNet's words."""

import importlib.resources

import pytest

from nlip_jax.data.concepts.wordnet import Entry, is_noun, words


def test_what_the_table_says():
    table = words()
    assert table["dog"] == Entry("t", False, 42, 2, 0, False)
    assert table["soccer"].kind == "d"
    assert table["idea"].kind == "x"
    assert table["hot dog"].kind == "t"
    assert table["swimming pool"].includes_last
    assert "red fox" not in table
    assert table["run"].verb > table["run"].noun
    assert table["red"].other > table["red"].noun
    assert (table["quickly"].kind, table["quickly"].may_be_other) == ("-", True)


@pytest.mark.parametrize(
    ("word", "noun"), [("dog", True), ("dogs", False), ("quickly", False), ("xyzzy", False)]
)
def test_is_noun(word, noun):
    assert is_noun(word) == noun


def test_the_table_is_small_and_has_its_licence_beside_it():
    folder = importlib.resources.files("nlip_jax.data.concepts")
    assert len(folder.joinpath("wordnet_words.tsv.gz").read_bytes()) < 400_000
    notice = folder.joinpath("LICENSE-WordNet").read_text()
    assert "WordNet 3.0 Copyright 2006 by Princeton University" in notice
    assert all(word == word.lower() and len(word.split()) <= 3 for word in words())
    assert 50_000 < len(words()) < 100_000
