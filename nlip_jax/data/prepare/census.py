"""The first pass over a data set: which texts are shared by many images, which tokens are rare.

It leaves 12 bytes on disk for each caption, and 12 for each unigram and bigram that is new in its
part of the data; they are removed at the end. Memory stays at some 200 MB, and 8 bytes for each
text or token that is looked up later. 10 million captions cost about 100 seconds of one core and
0.5 GB of disk. Numbers of 64 bits stand for the texts: any two of 10 million different ones have
the same with probability 3e-6.
"""

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from nlip_jax import phases
from nlip_jax.data.prepare import counts
from nlip_jax.data.prepare.images import Span, examples_by_image, read_captions, spans
from nlip_jax.data.prepare.rules import RULES, Limits
from nlip_jax.data.prepare.words import number_of, token_numbers
from nlip_jax.data.source import Source

SPAN = 1 << 14  # images in a part
_ADVANCE = 64  # images between two words on the progress


def text_numbers(captions: list[str]) -> Iterator[np.ndarray]:
    """The texts of an image, each once."""
    yield np.fromiter({number_of(text) for text in captions}, np.uint64)


def tokens_of(captions: list[str]) -> Iterator[np.ndarray]:
    """All unigrams and bigrams of an image."""
    yield from map(token_numbers, captions)


@dataclass(frozen=True)
class _Census:
    """What is counted for a rule.

    Attributes:
      what: name of the files with the counts.
      numbers: captions of an image -> numbers to count.
      choose: (files, limit) -> the numbers that the rule looks up, sorted.
    """

    what: str
    numbers: Callable[[list[str]], Iterator[np.ndarray]]
    choose: Callable[[list[Path], int], np.ndarray]


_CENSUSES = {
    "max_images": _Census("texts", text_numbers, counts.more_often_than),
    "top_tokens": _Census("tokens", tokens_of, counts.most_frequent),
    "min_token_count": _Census("tokens", tokens_of, counts.at_least),
}


@dataclass(frozen=True)
class CountTexts:
    """Counts one part of a data set; a task of the first pass.

    Attributes:
      source: the data set.
      limits: the rules that are on.
      folder: where the counts go.
    """

    source: Source
    limits: Limits
    folder: Path

    @property
    def parts(self) -> list[Span]:
        """The parts of the data set."""
        return spans(self.source.num_images, -(-self.source.num_images // SPAN))

    def todo(self) -> list[int]:
        """Parts that are not counted yet."""
        whats = self._numbers()
        return [
            part
            for part in range(len(self.parts))
            if not all(self._path(what, part).exists() for what in whats)
        ]

    def __call__(self, part: int, advance: Callable[[int], None]) -> None:
        """Counts the part of that number."""
        numbers = self._numbers()
        found = {what: [] for what in numbers}
        span = self.parts[part]
        done = span.start
        for image_id, ids in examples_by_image(self.source, span):
            captions = read_captions(self.source, ids, Counter())
            for what, of in numbers.items():
                found[what] += of(captions)
            if image_id - done >= _ADVANCE:
                advance(image_id - done)
                done = image_id
        for what, arrays in found.items():
            joined = np.concatenate([np.zeros(0, np.uint64), *arrays])
            counts.write_counts(self._path(what, part), joined)
            phases.enter("prepare_counted", part=part, what=what)
        advance(span.stop - done)

    def tables(self) -> dict[str, Path]:
        """Makes of all counts what the rules look up: a .npy file for each rule that needs one."""
        made = {}
        for rule, limit in self.limits.items():
            if RULES[rule].needs_counts:
                census, made[rule] = _CENSUSES[rule], self.folder / f"{rule}.npy"
                files = [self._path(census.what, part) for part in range(len(self.parts))]
                np.save(made[rule], census.choose(files, limit))
        return made

    def _numbers(self) -> dict[str, Callable[[list[str]], Iterator[np.ndarray]]]:
        return {
            _CENSUSES[rule].what: _CENSUSES[rule].numbers
            for rule in self.limits
            if RULES[rule].needs_counts
        }

    def _path(self, what: str, part: int) -> Path:
        return self.folder / f"{what}-{part:06d}.npy"
