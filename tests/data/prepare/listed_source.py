"""A source made of lists, which travels to worker processes."""

from dataclasses import dataclass, field

import numpy as np

from nlip_jax.data.failures import ReadError
from nlip_jax.data.source import NO_HOLES, Numbering, Place


@dataclass(frozen=True)
class ListedSource:
    """Pictures (file, pixels, or a kind of failure) with their captions."""

    pictures: tuple
    captions: tuple[tuple[str, ...], ...]
    holes: np.ndarray = field(default_factory=lambda: NO_HOLES)
    fingerprint: str = "f00d"
    draws_captions: bool = False

    @property
    def numberings(self):
        return (Numbering(len(self), self.fingerprint),)

    @property
    def num_images(self):
        return len(self.pictures)

    @property
    def _examples(self):
        return [(image, text) for image, texts in enumerate(self.captions) for text in texts]

    def __len__(self):
        return sum(map(len, self.captions))

    def image_id(self, example_id):
        return self._examples[example_id][0]

    def picture(self, image_id):
        picture = self.pictures[image_id]
        if isinstance(picture, str):
            raise ReadError(picture, "as the test asked for")
        return picture

    def caption(self, example_id, epoch=0):
        text = self._examples[example_id][1]
        if text == "unreadable":
            raise ReadError("unreadable_caption", "as the test asked for")
        return text

    def place(self, image_id):
        return Place("list", f"key{image_id}")

    def truth(self):
        return None


def accepts_english(text: str) -> bool:
    """A language filter of a user's."""
    return text.isascii()
