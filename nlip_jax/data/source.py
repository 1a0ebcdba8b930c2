"""What a data set is to the rest of the house: examples by number.

An *example* is one image with one caption and has a dense `example_id` in [0, n). An image has a
dense `image_id` too, because several captions may share it. Sources know nothing of batches,
orders, augmentation or JAX; they are deterministic and picklable, so that worker processes hold
the same data as the trainer.
"""

from dataclasses import dataclass
from typing import Protocol

import numpy as np

# What was planted in a caption, as stored in `Source.truth()`. Only measurements look at it.
TRUTH = ("clean", "mismatched", "incomplete", "irrelevant")

# An image file as it is stored, or pixels `[h, w, 3]` uint8 RGB where nothing is left to decode.
Picture = bytes | np.ndarray

NO_HOLES = np.zeros((0, 2), np.int64)


@dataclass(frozen=True)
class Place:
    """Where an image lies, for messages and quarantine.jsonl.

    Attributes:
      shard: file, or name of the data set.
      key: of the sample in it.
    """

    shard: str
    key: str


@dataclass(frozen=True)
class SampleName:
    """What an image is called where it lies.

    Attributes:
      key: of the sample in its shard, as of `Place`.
      uid: what DataComp's tools know it by, from its metadata; empty where it has none.
    """

    key: str
    uid: str = ""


@dataclass(frozen=True)
class Numbering:
    """What the ids of a data set mean, so that a column knows whether it fits.

    Attributes:
      length: number of examples, those in holes included.
      fingerprint: hexadecimal; the same only where every id below `length` means the same example.
    """

    length: int
    fingerprint: str


class Source(Protocol):
    """Random access to the examples of one data set."""

    fingerprint: str  # hexadecimal; another value whenever images, captions, ids or holes differ
    # What the ids mean now (the last one) and meant before shards were appended: a column made for
    # any of them fits.
    numberings: tuple[Numbering, ...]
    num_images: int
    draws_captions: bool  # whether `caption` depends on the epoch
    holes: np.ndarray  # `[k, 2]` int64, sorted [start, stop) of example ids that are gone

    def __len__(self) -> int:
        """Number of example ids, those in holes included."""
        ...

    def image_id(self, example_id: int) -> int:
        """The image of an example."""
        ...

    def picture(self, image_id: int) -> Picture:
        """The image, as it is stored.

        Raises:
          ReadError: it cannot be read.
        """
        ...

    def caption(self, example_id: int, epoch: int = 0) -> str:
        """The caption of an example; only sources that draw captions look at `epoch`.

        Raises:
          ReadError: it cannot be read.
        """
        ...

    def place(self, image_id: int) -> Place:
        """Where the image lies; works for images that cannot be read, too."""
        ...

    def truth(self) -> np.ndarray | None:
        """Index into `TRUTH` of every example, `[n]` int8; None where nothing is known."""
        ...


def image_ids(source: Source, example_ids: np.ndarray) -> np.ndarray:
    """The images of many examples, `[n]` int64; a source with `image_ids` of its own is asked once.

    Args:
      source: any source.
      example_ids: `[n]` integers.
    """
    if hasattr(source, "image_ids"):
        return source.image_ids(example_ids)
    return np.fromiter((source.image_id(int(i)) for i in example_ids), np.int64, len(example_ids))


def sample_names(source: Source, image_ids: np.ndarray) -> list[SampleName]:
    """The names of many images; a source with `sample_names` of its own is asked once.

    Args:
      source: any source.
      image_ids: `[k]` integers; quickest in ascending order.
    """
    if hasattr(source, "sample_names"):
        return source.sample_names(image_ids)
    return [SampleName(source.place(int(image_id)).key) for image_id in image_ids]


def shard_names(source: Source, image_ids: np.ndarray) -> list[str]:
    """The shards of many images; a source with `shard_names` of its own is asked once.

    Args:
      source: any source.
      image_ids: `[k]` integers.
    """
    if hasattr(source, "shard_names"):
        return source.shard_names(image_ids)
    return [source.place(int(image_id)).shard for image_id in image_ids]


class SourceView:
    """A source that shows another one; subclasses replace what they are about.

    Args:
      source: the inner source.
    """

    def __init__(self, source: Source) -> None:
        self.source = source

    @property
    def fingerprint(self) -> str:
        """Hexadecimal; that of the inner source."""
        return self.source.fingerprint

    @property
    def numberings(self) -> tuple[Numbering, ...]:
        """What the ids mean; as in the inner source."""
        return self.source.numberings

    @property
    def num_images(self) -> int:
        """Number of images."""
        return self.source.num_images

    @property
    def draws_captions(self) -> bool:
        """Whether `caption` depends on the epoch."""
        return self.source.draws_captions

    @property
    def holes(self) -> np.ndarray:
        """Example ids that are gone, `[k, 2]` int64."""
        return self.source.holes

    def __len__(self) -> int:
        return len(self.source)

    def image_id(self, example_id: int) -> int:
        """The image of an example."""
        return self.source.image_id(example_id)

    def image_ids(self, example_ids: np.ndarray) -> np.ndarray:
        """The images of many examples, `[n]` int64."""
        return image_ids(self.source, example_ids)

    def sample_names(self, image_ids: np.ndarray) -> list[SampleName]:
        """The names of many images."""
        return sample_names(self.source, image_ids)

    def shard_names(self, image_ids: np.ndarray) -> list[str]:
        """The shards of many images."""
        return shard_names(self.source, image_ids)

    def picture(self, image_id: int) -> Picture:
        """The image, as it is stored."""
        return self.source.picture(image_id)

    def caption(self, example_id: int, epoch: int = 0) -> str:
        """The caption of an example."""
        return self.source.caption(example_id, epoch)

    def place(self, image_id: int) -> Place:
        """Where the image lies."""
        return self.source.place(image_id)

    def truth(self) -> np.ndarray | None:
        """Index into `TRUTH` of every example, `[n]` int8; None where nothing is known."""
        return self.source.truth()
