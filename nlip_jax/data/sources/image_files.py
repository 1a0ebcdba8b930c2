"""Images that a file names, with captions in memory: small evaluation sets without an index."""

import hashlib
from collections.abc import Sequence

import numpy as np

from nlip_jax.data.formats.reading import read_image_file
from nlip_jax.data.source import NO_HOLES, Numbering, Place
from nlip_jax.data.storage import Storage
from nlip_jax.errors import UsageError


class ImageFiles:
    """The `Source` of image files by their paths; every one must be there.

    Args:
      paths: of the images.
      storage: how they are reached.
      captions: of the examples; empty where the images have none.
      owners: image of each caption.
      named_in: the file that names the images, for messages.

    Raises:
      UsageError: some images are not there.
    """

    draws_captions = False
    holes = NO_HOLES

    def __init__(
        self,
        paths: Sequence[str],
        *,
        storage: Storage,
        captions: Sequence[str] = (),
        owners: Sequence[int] = (),
        named_in: str,
    ) -> None:
        statuses = storage.statuses(paths)
        absent = [path for path, status in zip(paths, statuses, strict=True) if status is None]
        if absent:
            raise UsageError(
                f"{len(absent)} of {len(paths)} images that {named_in} names are not there, such "
                f"as {absent[0]}: complete the folder, or name another root"
            )
        self.paths, self.storage = tuple(paths), storage
        self.captions, self.owners = tuple(captions), np.asarray(owners, np.int64).reshape(-1)
        self.named_in = named_in
        files = [(path, s.size, s.modified_ns) for path, s in zip(paths, statuses, strict=True)]
        content = repr((files, self.captions, self.owners.tolist()))
        self.fingerprint = hashlib.blake2b(content.encode("utf-8", "replace"), digest_size=16)
        self.fingerprint = self.fingerprint.hexdigest()
        self.numberings = (Numbering(len(self), self.fingerprint),)

    @property
    def num_images(self) -> int:
        """Number of images."""
        return len(self.paths)

    def __len__(self) -> int:
        return len(self.captions)

    def image_id(self, example_id: int) -> int:
        """The image of an example."""
        return int(self.owners[example_id])

    def image_ids(self, example_ids: np.ndarray) -> np.ndarray:
        """The images of many examples, `[n]` int64."""
        return self.owners[example_ids]

    def picture(self, image_id: int) -> bytes:
        """The image file.

        Raises:
          ReadError: it cannot be read.
        """
        return read_image_file(self.paths[image_id], self.storage)

    def caption(self, example_id: int, epoch: int = 0) -> str:
        """The caption of an example."""
        del epoch
        return self.captions[example_id]

    def place(self, image_id: int) -> Place:
        """The file that names the image, and its path."""
        return Place(self.named_in, self.paths[image_id])

    def truth(self) -> None:
        """Nobody knows which pairs are noise."""
