"""What finds concepts in captions."""

from collections.abc import Iterable, Iterator
from typing import Protocol


class Tagger(Protocol):
    """Finds the nouns and short noun phrases of captions; deterministic."""

    def __call__(self, captions: Iterable[str]) -> Iterator[frozenset[str]]:
        """The concepts of each caption, lower case and singular, in the order of the captions."""
        ...
