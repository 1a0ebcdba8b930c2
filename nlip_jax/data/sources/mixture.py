"""Several sources as one, to be drawn from by weight."""

import bisect
import hashlib
import math
from collections.abc import Callable, Mapping
from itertools import accumulate

import numpy as np

from nlip_jax.data.source import (
    NO_HOLES,
    Numbering,
    Picture,
    Place,
    SampleName,
    Source,
    sample_names,
    shard_names,
)
from nlip_jax.errors import UsageError


class Mixture:
    """The examples of several sources, each in a range of ids of its own, one after another.

    The weights say how often the order draws from each part; here they are only kept for it.

    Args:
      parts: source and weight by name, in the order of their ids.

    Attributes:
      names: of the parts.
      part_sizes: number of examples of each part.
      weights: as given; shares of the draws when divided by their sum.

    Raises:
      UsageError: no part, or a weight that is not finite and above 0.
    """

    def __init__(self, parts: Mapping[str, tuple[Source, float]]) -> None:
        if not parts:
            raise UsageError("a mixture needs one part or more")
        for name, (_, weight) in parts.items():
            if not (0 < weight < math.inf):
                raise UsageError(
                    f"mixture part {name!r}: weight {weight} must be finite and above 0; leave out "
                    "a part that should never be drawn"
                )
        self.names = tuple(parts)
        self._sources = tuple(source for source, _ in parts.values())
        self.weights = tuple(float(weight) for _, weight in parts.values())
        self.part_sizes = tuple(len(source) for source in self._sources)
        self._examples = (0, *accumulate(self.part_sizes))
        self._images = (0, *accumulate(source.num_images for source in self._sources))

    def __len__(self) -> int:
        return self._examples[-1]

    @property
    def num_images(self) -> int:
        """Number of images of all parts."""
        return self._images[-1]

    @property
    def draws_captions(self) -> bool:
        """Whether any part does."""
        return any(source.draws_captions for source in self._sources)

    @property
    def fingerprint(self) -> str:
        """Hexadecimal; covers the parts, their order and their weights."""
        return _hash([source.fingerprint for source in self._sources], self.weights)

    @property
    def numberings(self) -> tuple[Numbering, ...]:
        """What the ids mean and meant; only the last part can grow without moving others."""
        *fixed, last = self._sources
        before = [source.numberings[-1] for source in fixed]
        start = self._examples[-2]
        return tuple(
            Numbering(start + known.length, _hash(before, known)) for known in last.numberings
        )

    @property
    def holes(self) -> np.ndarray:
        """Example ids that are gone in any part, `[k, 2]` int64."""
        starts = zip(self._sources, self._examples, strict=False)
        return np.concatenate([NO_HOLES, *(source.holes + start for source, start in starts)])

    def image_id(self, example_id: int) -> int:
        """The image of an example."""
        part, inner = _find(self._examples, example_id)
        return self._images[part] + self._sources[part].image_id(inner)

    def picture(self, image_id: int) -> Picture:
        """The image, as its part has it stored."""
        part, inner = _find(self._images, image_id)
        return self._sources[part].picture(inner)

    def caption(self, example_id: int, epoch: int = 0) -> str:
        """The caption of an example."""
        part, inner = _find(self._examples, example_id)
        return self._sources[part].caption(inner, epoch)

    def place(self, image_id: int) -> Place:
        """Where the image lies in its part."""
        part, inner = _find(self._images, image_id)
        return self._sources[part].place(inner)

    def shard_names(self, image_ids: np.ndarray) -> list[str]:
        """The shards of many images."""
        return self._of_parts(shard_names, image_ids)

    def sample_names(self, image_ids: np.ndarray) -> list[SampleName]:
        """The names of many images."""
        return self._of_parts(sample_names, image_ids)

    def _of_parts(self, ask: Callable[[Source, np.ndarray], list], image_ids: np.ndarray) -> list:
        """What the parts say of their images, in the order of the images."""
        image_ids = np.asarray(image_ids, np.int64)
        found = [None] * len(image_ids)
        bounds = zip(self._images[:-1], self._images[1:], strict=True)
        for source, (start, stop) in zip(self._sources, bounds, strict=True):
            places = np.flatnonzero((image_ids >= start) & (image_ids < stop))
            for place, one in zip(places, ask(source, image_ids[places] - start), strict=True):
                found[place] = one
        return found

    def truth(self) -> np.ndarray | None:
        """What any part knows, `[n]` int8, 0 in parts that know nothing; None if none knows."""
        known = [source.truth() for source in self._sources]
        if all(truth is None for truth in known):
            return None
        return np.concatenate(
            [
                np.zeros(size, np.int8) if truth is None else truth
                for truth, size in zip(known, self.part_sizes, strict=True)
            ]
        )


def _find(bounds: tuple[int, ...], number: int) -> tuple[int, int]:
    """The part that a number is in, and the number there."""
    if not 0 <= number < bounds[-1]:
        raise IndexError(f"{number} of {bounds[-1]}")
    part = bisect.bisect_right(bounds, number) - 1
    return part, int(number) - bounds[part]


def _hash(*parts: object) -> str:
    return hashlib.blake2b(repr(parts).encode(), digest_size=16).hexdigest()
