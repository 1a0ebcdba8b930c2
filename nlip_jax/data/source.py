"""What a data set is to the rest of the house: examples by number.

An *example* is one image with one caption and has a dense `example_id` in [0, n). An image has a
dense `image_id` too, because several captions may share it. Sources know nothing of batches,
orders, augmentation or JAX; they are deterministic and picklable, so that worker processes hold
the same data as the trainer.
"""

from typing import Protocol

import numpy as np

# What was planted in a caption, as stored in `Source.truth()`. Only measurements look at it.
TRUTH = ("clean", "mismatched", "incomplete", "irrelevant")


class Source(Protocol):
    """Random access to the examples of one data set."""

    fingerprint: str  # hexadecimal; another value whenever images, captions or ids differ
    num_images: int
    draws_captions: bool  # whether `caption` depends on the epoch

    def __len__(self) -> int:
        """Number of examples."""
        ...

    def image_id(self, example_id: int) -> int:
        """The image of an example."""
        ...

    def image(self, image_id: int) -> np.ndarray:
        """The decoded image, `[h, w, 3]` uint8 RGB, before any resizing or augmentation."""
        ...

    def caption(self, example_id: int, epoch: int = 0) -> str:
        """The caption of an example; only sources that sample captions look at `epoch`."""
        ...

    def truth(self) -> np.ndarray | None:
        """Index into `TRUTH` of every example, `[n]` int8; None where nothing is known."""
        ...


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
    def num_images(self) -> int:
        """Number of images."""
        return self.source.num_images

    @property
    def draws_captions(self) -> bool:
        """Whether `caption` depends on the epoch."""
        return self.source.draws_captions

    def __len__(self) -> int:
        return len(self.source)

    def image_id(self, example_id: int) -> int:
        """The image of an example."""
        return self.source.image_id(example_id)

    def image(self, image_id: int) -> np.ndarray:
        """The decoded image, `[h, w, 3]` uint8 RGB."""
        return self.source.image(image_id)

    def caption(self, example_id: int, epoch: int = 0) -> str:
        """The caption of an example."""
        return self.source.caption(example_id, epoch)

    def truth(self) -> np.ndarray | None:
        """Index into `TRUTH` of every example, `[n]` int8; None where nothing is known."""
        return self.source.truth()
