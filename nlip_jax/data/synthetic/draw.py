"""Random numbers by name: the same key gives the same draws in every process and version."""

from collections.abc import Sequence
from random import Random
from typing import TypeVar

T = TypeVar("T")


class Draw(Random):
    """A stream of draws named by its seed, a string.

    Only `random()` is called: it is the one method whose sequence Python promises to keep.
    """

    def pick(self, options: Sequence[T]) -> T:
        """One of the options, all equally likely; list an option twice to make it likelier."""
        return options[int(self.random() * len(options))]

    def chance(self, probability: float) -> bool:
        """True with this probability."""
        return self.random() < probability

    def between(self, low: float, high: float) -> float:
        """A number in [low, high)."""
        return low + (high - low) * self.random()

    def shuffled(self, items: Sequence[T]) -> list[T]:
        """The items in another order."""
        return sorted(items, key=lambda _: self.random())
