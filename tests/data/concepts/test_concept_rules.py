"""Nouns and noun phrases of captions by rules, and the plurals and file names among them."""

import pytest

from nlip_jax.data.concepts import RuleTagger, folded_words
from nlip_jax.data.concepts.plurals import singular
from nlip_jax.data.concepts.raw_text import clean, split_chunk
from nlip_jax.data.synthetic import SyntheticScenes
from nlip_jax.data.synthetic.captions import names_of
from nlip_jax.data.synthetic.draw import Draw
from nlip_jax.data.synthetic.noise import irrelevant_text
from nlip_jax.data.synthetic.scenes import SHAPES


def find(caption, max_words=3):
    (found,) = RuleTagger(max_words=max_words)([caption])
    return sorted(found)


@pytest.mark.parametrize(
    ("caption", "concepts"),
    [
        # adjectives before a noun
        ("a small striped red circle", ["circle", "red circle", "striped red circle"]),
        ("The TALL man", ["man", "tall man"]),
        ("a black-and-white cat", ["black-and-white cat", "cat"]),
        ("a man young and tall", ["man"]),
        ("a woman in black", ["woman"]),
        ("a red and white bus", ["bus", "white bus"]),
        # nouns before a noun
        ("a brick building", ["brick", "brick building", "building"]),
        ("a birthday cake", ["birthday cake", "cake"]),
        ("the boy's bicycle", ["bicycle", "boy"]),
        ("the boys' bicycle", ["bicycle", "boy"]),
        # nouns of several words
        ("a hot dog", ["hot dog"]),
        ("two swimming pools", ["pool", "swimming pool"]),
        ("a blue star", ["blue star", "star"]),
        ("a small white dog", ["dog", "small white dog", "white dog"]),
        ("a polar bear", ["bear", "polar bear"]),
        ("a t-shirt and a Ferris wheel", ["ferris wheel", "t-shirt"]),
        # verbs after a noun
        ("a dog runs through the grass", ["dog", "grass"]),
        ("Two dogs run .", ["dog"]),
        ("a man watches the waves", ["man", "wave"]),
        ("two watches on a table", ["table", "watch"]),
        ("a girl on swings", ["girl", "swing"]),
        ("a girl swings", ["girl"]),
        ("a man is climbing a rock", ["man", "rock"]),
        ("a man wearing a hat", ["hat", "man"]),
        ("a bus stop", ["bus stop", "stop"]),
        ("a bus stops", ["bus"]),
        ("two golf swings", ["golf", "golf swing", "swing"]),
        ("two golfers swing", ["golfer"]),
        ("a running dog", ["dog", "running dog"]),
        ("people walk to a building", ["building", "person"]),
        # words that are seldom nouns, and nouns of what no image shows
        ("in a be at he as", []),
        ("a walk on a day with the idea of time", []),
        ("an orange", ["orange"]),
        ("an orange and blue hat", ["blue hat", "hat"]),
        ("oranges", ["orange"]),
        # quantities
        ("a group of people", ["person"]),
        ("a group sits", ["group"]),
        ("a pair of boots", ["boot"]),
        ("a cup of coffee", ["coffee", "cup"]),
        ("a picture of a house", ["house"]),
        ("birds of prey", ["bird", "prey"]),
        # punctuation parts phrases
        ("dog, cat; bird/horse", ["bird", "cat", "dog", "horse"]),
        ("Blue Sofa - Leather!", ["blue sofa", "leather", "sofa"]),
        ("a dog. Red grass", ["dog", "grass", "red grass"]),
        # no text
        ("img_0032.jpg", []),
        ("DSC01 640x480 1/200s f/2.8 2019-01-02", []),
        ("http://a.dog/cat www.dog.com dog@cat.org C:\\dog\\cat /data/dog/cat.png dog.cat", []),
        ("my_dog a dog4 #dog", ["dog"]),
        ("", []),
        ("\u72ac \u00e9l\u00e8ve \U0001f415", []),
    ],
    ids=str,
)
def test_concepts(caption, concepts):
    assert find(caption) == concepts


@pytest.mark.parametrize(
    ("max_words", "concepts"),
    [
        (1, ["circle"]),
        (2, ["circle", "red circle"]),
        (4, ["circle", "red circle", "small striped red circle", "striped red circle"]),
    ],
)
def test_longest_phrases(max_words, concepts):
    assert find("a small striped red circle", max_words) == concepts
    assert all(len(text.split()) <= max_words for text in find("a hot dog stand", max_words))


@pytest.mark.parametrize(
    ("plural", "one"),
    [
        *[("circles", "circle"), ("boxes", "box"), ("people", "person"), ("children", "child")],
        *[("knives", "knife"), ("glass", "glass"), ("bus", "bus"), ("buses", "bus")],
        *[("crosses", "cross"), ("stripes", "stripe"), ("horses", "horse"), ("leaves", "leaf")],
        *[("puppies", "puppy"), ("cookies", "cookie"), ("potatoes", "potato"), ("feet", "foot")],
        *[("jeans", "jeans"), ("glasses", "glasses"), ("woods", "woods"), ("waves", "wave")],
        *[("menus", "menu"), ("iris", "iris"), ("dress", "dress"), ("hands", "hand")],
        *[("dog", "dog"), ("xyzzys", "xyzzys"), ("gas", "gas"), ("s", "s"), ("", "")],
    ],
    ids=str,
)
def test_singular(plural, one):
    assert singular(plural) == one


def test_folded_words():
    found = folded_words("Two Dogs, the boys' boxes IMG_1.jpg.")
    assert found == ["two", "dog", "the", "boy", "box"]


def test_clean_keeps_what_is_text():
    assert clean("A dog, img_1.JPG! (two cats)") == "A dog, . (two cats)"
    assert clean("") == ""


@pytest.mark.parametrize("letters", [30, 31, 10_000])
def test_endless_words_are_code(letters):
    assert (split_chunk("x" * letters) == ("x" * letters,)) == (letters == 30)
    assert find("-" * letters) == find("'" * letters) == find("a." * letters) == []


def test_scenes_name_their_shapes_and_web_texts_name_none():
    source = SyntheticScenes(num_examples=150, seed=0)
    named = {words: shape for shape in SHAPES for words in names_of(shape)}
    wanted = missed = 0
    for i in range(len(source)):
        shapes = {group.shape for group in source.scene(i).groups}
        found = {named[c] for c in find(source.clean_caption(i)) if c in named}
        assert found <= shapes
        wanted += len(shapes)
        missed += len(shapes - found)
    assert missed <= 0.03 * wanted  # "a triangular shape" names no noun
    texts = [irrelevant_text(Draw(str(i))) for i in range(300)]
    assert not set(SHAPES) & set().union(*RuleTagger(max_words=1)(texts))


def test_a_caption_by_itself_and_among_others():
    captions = ["a red dog", "", "two cats", "a red dog"]
    assert list(RuleTagger(max_words=2)(captions)) == [
        frozenset({"dog", "red dog"}),
        frozenset(),
        frozenset({"cat"}),
        frozenset({"dog", "red dog"}),
    ]
