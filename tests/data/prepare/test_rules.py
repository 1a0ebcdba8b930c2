import numpy as np
import pytest

from nlip_jax.data.prepare import rules
from nlip_jax.data.prepare.rules import ALIGN, RULES, Facts, Screen, parse_rules
from nlip_jax.data.prepare.words import number_of, token_numbers, words
from nlip_jax.errors import UsageError


def sorted_numbers(texts) -> np.ndarray:
    return np.array(sorted(map(number_of, texts)), np.uint64)


def test_align_is_what_the_paper_says():
    assert ALIGN == {
        "min_side": 200,
        "max_aspect": 3.0,
        "max_texts": 1000,
        "max_images": 10,
        "min_words": 3,
        "max_words": 20,
        "top_tokens": 100_000_000,
    }


@pytest.mark.parametrize(
    ("function", "facts", "limit", "dropped"),
    [
        (rules.is_small, Facts(200, 500, 1), 200, True),
        (rules.is_small, Facts(500, 200, 1), 200, True),
        (rules.is_small, Facts(201, 201, 1), 200, False),
        (rules.is_elongated, Facts(100, 300, 1), 3.0, True),
        (rules.is_elongated, Facts(300, 100, 1), 3.0, True),
        (rules.is_elongated, Facts(299, 100, 1), 3.0, False),
        (rules.has_many_texts, Facts(1, 1, 1001), 1000, True),
        (rules.has_many_texts, Facts(1, 1, 1000), 1000, False),
    ],
)
def test_rules_of_images(function, facts, limit, dropped):
    assert function(facts, limit) is dropped


@pytest.mark.parametrize(
    ("function", "text", "limit", "dropped"),
    [
        (rules.has_few_words, "two words", 3, True),
        (rules.has_few_words, "now three words", 3, False),
        (rules.has_few_words, "1920x1080 - !!", 3, True),
        (rules.has_many_words, " ".join("abcdefghijklmnopqrstu"), 20, True),
        (rules.has_many_words, " ".join("abcdefghijklmnopqrst"), 20, False),
        (rules.is_shared, "alt_img", sorted_numbers(["alt_img", "cristina"]), True),
        (rules.is_shared, "alt img", sorted_numbers(["alt_img", "cristina"]), False),
        (rules.is_shared, "alt_img", sorted_numbers([]), False),
        (rules.is_refused, "ein Hund", str.isupper, True),
        (rules.is_refused, "EIN HUND", str.isupper, False),
    ],
)
def test_rules_of_texts(function, text, limit, dropped):
    assert function(text, limit) is dropped


def test_rare_tokens_are_unigrams_or_bigrams():
    known = np.unique(np.concatenate([token_numbers("a red dog"), token_numbers("dog a")]))
    assert not rules.has_rare_token("a red dog, a red", known)
    assert rules.has_rare_token("a blue dog", known)
    assert rules.has_rare_token("red a", known)  # both words are known, next to each other not
    assert rules.has_rare_token("zebra", known[:0])
    assert not rules.has_rare_token("!!", known[:0])


def test_words():
    assert words("Don't STOP, it\u2019s a 2nd-rate naïve film!") == [
        *("don't", "stop", "it\u2019s", "a", "2nd", "rate", "naïve", "film"),
    ]
    assert words("") == [] and len(token_numbers("")) == 0
    assert len(token_numbers("one")) == 1 and len(token_numbers("one two three")) == 5
    assert token_numbers("one two")[2] != token_numbers("two one")[2]
    assert number_of("dog") == 0x3984C7C1D25E9C9F  # on every machine


@pytest.mark.parametrize(
    ("text", "limits"),
    [
        ("", {}),
        ("align", ALIGN),
        ("align, min_side=256", ALIGN | {"min_side": 256}),
        ("min_words=3,max_aspect=2.5", {"max_aspect": 2.5, "min_words": 3}),
        ("language=listed_source:accepts_english", {"language": "listed_source:accepts_english"}),
        ("align,top_tokens=off", {k: v for k, v in ALIGN.items() if k != "top_tokens"}),
        ("min_token_count=off", {}),
    ],
)
def test_parse(text, limits):
    assert parse_rules(text) == limits
    assert list(parse_rules(text)) == [name for name in RULES if name in limits]


@pytest.mark.parametrize(
    ("text", "words_of_message"),
    [
        ("aline", ["'aline'", "min_side", "language"]),
        ("min_side", ["'min_side'", "NAME=LIMIT"]),
        ("min_side=0", ["min_side=0", "from 1 on"]),
        ("min_side=2.5", ["min_side=2.5", "whole number"]),
        ("max_aspect=nan", ["max_aspect=nan"]),
        ("max_aspect=wide", ["max_aspect=wide"]),
        ("language=no.such:thing", ["no.such"]),
        ("language=listed_source", ["package.module:function"]),
        ("language=listed_source:__name__", ["package.module:function"]),
    ],
)
def test_parse_refuses(text, words_of_message):
    with pytest.raises(UsageError) as caught:
        parse_rules(text)
    assert all(word in str(caught.value) for word in words_of_message), str(caught.value)


def test_screen_applies_what_is_on_in_the_order_of_the_table():
    screen = Screen({"min_side": 200, "max_aspect": 3.0, "min_words": 2, "max_words": 3}, {})
    assert screen.image(Facts(100, 900, 1)) == "min_side"
    assert screen.image(Facts(300, 900, 1)) == "max_aspect"
    assert screen.image(Facts(300, 400, 9999)) is None
    assert [screen.text(t) for t in ("a", "a b", "a b c d")] == ["min_words", None, "max_words"]
    assert Screen({}, {}).image(Facts(1, 1, 1)) is None and Screen({}, {}).text("") is None


def test_screen_uses_tables_and_functions():
    limits = {"max_images": 10, "top_tokens": 5, "language": "listed_source:accepts_english"}
    tables = {"max_images": sorted_numbers(["a b"]), "top_tokens": np.sort(token_numbers("a b c"))}
    screen = Screen(limits, tables)
    found = [screen.text(text) for text in ("a b", "a b c", "a d", "ä")]
    assert found == ["max_images", None, "top_tokens", "top_tokens"]
    assert Screen({"language": limits["language"]}, {}).text("ä") == "language"
