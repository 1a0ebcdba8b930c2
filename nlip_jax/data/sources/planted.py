"""Sources made of another source for measurements: one with planted noise, and a part of one."""

import bisect
import hashlib

import numpy as np

from nlip_jax.data.source import TRUTH, Numbering, Source, SourceView
from nlip_jax.errors import UsageError


class PlantedMismatch(SourceView):
    """A source in which a share of the examples have exchanged their captions.

    The captions are permuted among the chosen examples, so every caption is still there once, and
    none of the chosen has a caption of its own image. Examples in holes are never chosen.

    Args:
      source: any source.
      rate: share of the n examples outside holes that get another's caption, in [0, 1);
        round(rate * n) do.
      seed: of the choice and of the permutation.

    Raises:
      UsageError: a rate outside [0, 1), or an image that has more than half of the chosen captions.
    """

    def __init__(self, source: Source, rate: float, seed: int = 0) -> None:
        if not 0 <= rate < 1:
            raise UsageError(f"mismatch rate {rate}: must be at least 0 and below 1")
        super().__init__(source)
        self.rate, self.seed = rate, seed
        n = len(source)
        gone = np.concatenate([np.arange(0), *(np.arange(*hole) for hole in source.holes)])
        live = np.delete(np.arange(n), gone)
        rng = np.random.default_rng(seed)
        chosen = rng.choice(len(live), round(rate * len(live)), replace=False)
        self._moved = live[np.sort(chosen)]
        image = np.fromiter((source.image_id(int(i)) for i in self._moved), np.int64)
        self._donor = np.arange(n)
        self._donor[self._moved] = self._moved[_exchange(image, rng)]

    @property
    def fingerprint(self) -> str:
        """Hexadecimal; covers what was exchanged."""
        return _hash(self.source.fingerprint, "mismatch", float(self.rate), self.seed)

    @property
    def numberings(self) -> tuple[Numbering, ...]:
        """What the ids mean; nothing else is known, since other examples make another exchange."""
        return (Numbering(len(self), self.fingerprint),)

    def caption(self, example_id: int, epoch: int = 0) -> str:
        """The caption of an example: its own, or another's where one was planted."""
        return self.source.caption(int(self._donor[example_id]), epoch)

    def truth(self) -> np.ndarray:
        """What the inner source knows, "mismatched" where a caption was planted; `[n]` int8."""
        inner = self.source.truth()
        truth = np.zeros(len(self), np.int8) if inner is None else inner.copy()
        truth[self._moved] = TRUTH.index("mismatched")
        return truth


class FirstImages(SourceView):
    """The first images of a source and all their examples, under the same ids.

    Holes are kept and not counted: whoever asks for 1000 images gets 1000 that are there.

    Args:
      source: one whose examples are in the order of their images; no image is partly in a hole.
      count: number of images outside holes.

    Raises:
      UsageError: the source has fewer images.
    """

    def __init__(self, source: Source, count: int) -> None:
        super().__init__(source)
        stop, live = count, source.num_images
        for first, last in (source.holes - [0, 1]).tolist():
            start = source.image_id(first)
            size = source.image_id(last) + 1 - start
            live -= size
            stop += size if start < stop else 0
        if not 0 < count <= live:
            raise UsageError(f"num_images={count}: must be at most {live}, the images there are")
        self._num_images = stop
        self._length = bisect.bisect_left(range(len(source)), stop, key=source.image_id)

    @property
    def fingerprint(self) -> str:
        """Hexadecimal; covers how many images there are."""
        return self._hash(self.source.fingerprint)

    @property
    def numberings(self) -> tuple[Numbering, ...]:
        """What the ids mean; the same for any source that extends this one."""
        inner = self.source.numberings
        whole = next(numbering for numbering in inner if numbering.length >= len(self))
        parts = (numbering for numbering in inner if numbering.length < len(self))
        return (*parts, Numbering(len(self), self._hash(whole.fingerprint)))

    @property
    def num_images(self) -> int:
        """Number of images, those in holes included."""
        return self._num_images

    @property
    def holes(self) -> np.ndarray:
        """Example ids that are gone, `[k, 2]` int64."""
        holes = self.source.holes
        return np.minimum(holes[holes[:, 0] < len(self)], len(self))

    def __len__(self) -> int:
        return self._length

    def truth(self) -> np.ndarray | None:
        """What the source knows of these examples, `[n]` int8."""
        truth = self.source.truth()
        return None if truth is None else truth[: len(self)]

    def _hash(self, fingerprint: str) -> str:
        return _hash(fingerprint, "first", self._num_images)


def _hash(*made_of: object) -> str:
    return hashlib.blake2b(repr(list(made_of)).encode(), digest_size=16).hexdigest()


def _exchange(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A random permutation that leaves nothing with its own image.

    Args:
      image: `[k]` int64, the image of each.
      rng: the only source of randomness.

    Returns:
      `[k]` int64 permutation p with image[p[i]] != image[i] for all i.

    Raises:
      UsageError: there is none, because one image has more than half of the k.
    """
    images, counts = np.unique(image, return_counts=True)
    if len(image) and 2 * counts.max() > len(image):
        raise UsageError(
            f"captions of {len(image)} examples cannot be exchanged: {counts.max()} of them are of "
            f"one image ({images[counts.argmax()]}); use more images or another mismatch rate"
        )
    donor = rng.permutation(len(image))
    # An image with m captions, s of them stuck with it, has m - s elsewhere: that leaves
    # k - m - (m - s) >= s places to exchange with, and no exchange makes another conflict.
    for one in np.unique(image[image[donor] == image]):
        mine, has_mine = image == one, image[donor] == one
        stuck = np.flatnonzero(mine & has_mine)
        other = rng.choice(np.flatnonzero(~mine & ~has_mine), len(stuck), replace=False)
        donor[stuck], donor[other] = donor[other], donor[stuck]
    return donor
