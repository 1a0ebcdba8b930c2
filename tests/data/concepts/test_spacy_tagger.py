"""Concepts by a model of spaCy; a stand-in plays spaCy, as it is not installed for the tests."""

import sys
from dataclasses import dataclass
from types import ModuleType

import pytest

from nlip_jax.data.concepts.spacy_tagger import SpacyTagger
from nlip_jax.errors import UsageError

LEMMAS = {"dogs": "dog", "bears": "bear", "boxes": "box"}
PARTS = {
    **dict.fromkeys(("dogs", "bears", "bear", "boxes", "wall", "brick", "photo"), "NOUN"),
    **dict.fromkeys(("a", "the", "two"), "DET"),
    **dict.fromkeys(("polar", "red", "big"), "ADJ"),
    **dict.fromkeys(("Paris", "GmbH2"), "PROPN"),
    **dict.fromkeys(("run", "near"), "VERB"),
    "it": "PRON",
}


@dataclass
class Token:
    i: int
    text: str

    @property
    def lower_(self):
        return self.text.lower()

    @property
    def lemma_(self):
        return LEMMAS.get(self.text, self.text)

    @property
    def pos_(self):
        return PARTS.get(self.text, "PUNCT")


class Chunk(list):
    @property
    def root(self):
        return self[-1]


class Doc(list):
    """Chunks are what lies between verbs and punctuation."""

    @property
    def noun_chunks(self):
        chunk = Chunk()
        for token in [*self, Token(-1, ".")]:
            if token.pos_ in ("VERB", "PUNCT"):
                yield from [chunk] if chunk else []
                chunk = Chunk()
            else:
                chunk.append(token)


class Model:
    def __init__(self, pipe_names):
        self.pipe_names = pipe_names

    def pipe(self, texts, batch_size):
        assert batch_size > 1
        for text in texts:
            yield Doc(Token(i, word) for i, word in enumerate(text.split()))


@pytest.fixture
def spacy(monkeypatch):
    """Models by name; a test may add some."""
    models = {"en": ["tok2vec", "tagger", "parser", "lemmatizer"]}
    module = ModuleType("spacy")

    def load(name, exclude):
        assert "ner" in exclude
        if name not in models:
            raise OSError(f"[E050] Can't find model '{name}'.")
        return Model(models[name])

    module.load = load
    monkeypatch.setitem(sys.modules, "spacy", module)
    return models


@pytest.mark.parametrize(
    ("caption", "concepts"),
    [
        ("two dogs run", {"dog"}),
        ("a red brick wall", {"brick", "wall", "red brick wall"}),
        ("polar bears near the boxes", {"bear", "polar bear", "box"}),
        ("a big red polar bear", {"bear"}),  # four words are too long, and no part is taken
        ("it run", set()),
        ("IMG_0032.jpg dogs http://a.b/wall", {"dog"}),
        ("a photo", set()),
        ("Paris , GmbH2", {"paris"}),
        ("", set()),
    ],
    ids=lambda value: value if isinstance(value, str) else "",  # sets have no order
)
def test_nouns_and_chunks(spacy, caption, concepts):
    (found,) = SpacyTagger(model="en", max_words=3)([caption])
    assert found == concepts


def test_in_the_order_of_the_captions(spacy):
    captions = ["dogs", "", "bears run"]
    found = list(SpacyTagger(model="en", max_words=2)(iter(captions)))
    assert found == [{"dog"}, set(), {"bear"}]


def test_not_installed(monkeypatch):
    monkeypatch.setitem(sys.modules, "spacy", None)
    with pytest.raises(UsageError, match=r"needs spaCy.*pip install spacy.*download en;.*'rules'"):
        next(SpacyTagger(model="en", max_words=3)(["dogs"]))


def test_no_such_model(spacy):
    with pytest.raises(UsageError, match=r"has no model 'de': python -m spacy download de"):
        next(SpacyTagger(model="de", max_words=3)(["dogs"]))


def test_a_model_without_a_parser(spacy):
    spacy["small"] = ["tagger", "lemmatizer"]
    with pytest.raises(UsageError, match=r"the model has no parser; choose one that has"):
        next(SpacyTagger(model="small", max_words=3)(["dogs"]))
