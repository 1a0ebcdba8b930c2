"""Nouns and noun phrases as a model of spaCy finds them; the user installs both."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from nlip_jax.data.concepts.raw_text import clean
from nlip_jax.data.concepts.tables import FUNCTION_WORDS
from nlip_jax.errors import UsageError

# spaCy is imported by runs that ask for it.
# ruff: noqa: PLC0415

_BATCH = 256  # captions tagged together
_NOUNS = ("NOUN", "PROPN")
_NEEDLESS = ("ner", "textcat")  # parts of a model that only cost time


@dataclass(frozen=True)
class SpacyTagger:
    """Lemmas of nouns and names, and noun phrases without their determiners.

    Attributes:
      model: name or folder, as of `spacy.load`; it needs a tagger, a lemmatizer and a parser.
      max_words: of a phrase.
    """

    model: str
    max_words: int

    def __call__(self, captions: Iterable[str]) -> Iterator[frozenset[str]]:
        """The concepts of each caption.

        Raises:
          UsageError: spaCy or the model is not installed, or the model has no parser.
        """
        nlp = _load(self.model)
        for doc in nlp.pipe(map(clean, captions), batch_size=_BATCH):
            yield frozenset(self._find(doc))

    def _find(self, doc: Any) -> Iterator[str]:
        yield from (_lemma(token) for token in doc if token.pos_ in _NOUNS and _is_word(token))
        for chunk in doc.noun_chunks:
            words = _phrase(chunk)
            if 1 < len(words) <= self.max_words:
                yield " ".join((*(token.lower_ for token in words[:-1]), _lemma(words[-1])))


def _phrase(chunk: Any) -> list[Any]:
    """The adjectives and nouns before the head of a chunk, and the head; empty if it is no noun."""
    tokens = [token for token in chunk if token.i <= chunk.root.i]
    if chunk.root.pos_ not in _NOUNS or not all(map(_is_word, tokens[-1:])):
        return []
    start = len(tokens) - 1
    while start and tokens[start - 1].pos_ in (*_NOUNS, "ADJ") and _is_word(tokens[start - 1]):
        start -= 1
    return tokens[start:]


def _lemma(token: Any) -> str:
    return token.lemma_.lower()


def _is_word(token: Any) -> bool:
    text = token.lower_
    return len(text) > 1 and text.replace("-", "").isalpha() and _lemma(token) not in FUNCTION_WORDS


def _load(model: str) -> Any:
    try:
        import spacy
    except ImportError as error:
        raise UsageError(
            f"config.concepts.tagger='spacy:{model}' needs spaCy, which is not installed: pip "
            f"install spacy, then python -m spacy download {model}; or set it to 'rules'"
        ) from error
    try:
        nlp = spacy.load(model, exclude=list(_NEEDLESS))
    except OSError as error:
        raise UsageError(
            f"config.concepts.tagger='spacy:{model}': spaCy has no model {model!r}: python -m "
            f"spacy download {model}; or set it to 'rules'"
        ) from error
    missing = [name for name in ("parser", "lemmatizer") if name not in nlp.pipe_names]
    if missing:
        raise UsageError(
            f"config.concepts.tagger='spacy:{model}': the model has no {' and no '.join(missing)}; "
            "choose one that has, such as en_core_web_sm"
        )
    return nlp
