"""A made-up data set of any size: captions without a model, pictures or files."""

import dataclasses
import functools

import numpy as np

from nlip_jax.data.source import NO_HOLES, Numbering, Place, SampleName

_SHARD = 10_000  # rows of a shard
_HALVES = 1 << 16  # beginnings and ends of captions
_WORDS = 30_000
_MASK = (1 << 64) - 1


@dataclasses.dataclass(frozen=True)
class Rows:
    """Captions of about 11 words by number; 7 % are equal to another one, 7 % nearly so.

    Attributes:
      num_rows: of them.
    """

    num_rows: int

    draws_captions = False
    holes = NO_HOLES

    @property
    def fingerprint(self) -> str:
        """Of the number of rows."""
        return f"rows-{self.num_rows}"

    @property
    def numberings(self) -> tuple[Numbering, ...]:
        """The one that the fingerprint names."""
        return (Numbering(self.num_rows, self.fingerprint),)

    @property
    def num_images(self) -> int:
        """One for each row."""
        return self.num_rows

    def __len__(self) -> int:
        return self.num_rows

    def image_id(self, example_id: int) -> int:
        """The image of the same number."""
        return example_id

    def image_ids(self, example_ids: np.ndarray) -> np.ndarray:
        """The images of the same numbers."""
        return np.asarray(example_ids, np.int64)

    def picture(self, image_id: int) -> np.ndarray:
        """A grey square."""
        return np.full((32, 32, 3), image_id % 256, np.uint8)

    def caption(self, example_id: int, epoch: int = 0) -> str:
        """A beginning and an end; one row in seven has those of another row, or nearly."""
        del epoch
        number = _mix(example_id)
        if example_id % 14 < 2:
            number = _mix(number % self.num_rows)
        first, second = _halves()
        text = f"{first[number >> 48]} {second[number & 0xFFFF]}"
        return f"{text} again" if example_id % 14 == 1 else text

    def place(self, image_id: int) -> Place:
        """A shard of ten thousand rows."""
        return Place(f"rows/{image_id // _SHARD:05d}.tar", f"{image_id:09d}")

    def shard_names(self, image_ids: np.ndarray) -> list[str]:
        """The shards of many rows."""
        return [f"rows/{number:05d}.tar" for number in (image_ids // _SHARD).tolist()]

    def sample_names(self, image_ids: np.ndarray) -> list[SampleName]:
        """Their numbers, and uids made of them."""
        return [
            SampleName(f"{number:09d}", f"{_mix(number):016x}{_mix(number + 1):016x}")
            for number in image_ids.tolist()
        ]

    def truth(self) -> None:
        """None."""


def word(number: int) -> str:
    """A word of letters."""
    letters = "bcdfghjklmnpqrtvwz"
    digits = [number // len(letters) ** place % len(letters) for place in range(4)]
    return "a".join(letters[digit] for digit in digits)


def _mix(x: int) -> int:
    """SplitMix64."""
    x = (x + 0x9E3779B97F4A7C15) & _MASK
    x = ((x ^ (x >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
    x = ((x ^ (x >> 27)) * 0x94D049BB133111EB) & _MASK
    return x ^ (x >> 31)


@functools.cache
def _halves() -> tuple[list[str], list[str]]:
    rng = np.random.default_rng(0)
    words = [word(i) for i in range(_WORDS)]
    drawn = rng.zipf(1.3, (2, _HALVES, 6)) % len(words)

    def join(rows: np.ndarray, count: int) -> list[str]:
        return [" ".join(words[i] for i in row[:count]) for row in rows.tolist()]

    return join(drawn[0], 5), join(drawn[1], 6)
