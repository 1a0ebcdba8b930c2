"""Labelled images of a data set that TensorFlow Datasets has prepared."""

import hashlib
import io
from pathlib import Path

import numpy as np

from nlip_jax.data.failures import ReadError
from nlip_jax.data.source import NO_HOLES, Numbering, Place
from nlip_jax.data.sources.tfds_split import TfdsSplit
from nlip_jax.errors import UsageError
from nlip_jax.files import write_atomically


class TfdsLabelled:
    """A split with an image and a class label an example; threads may share it.

    Args:
      name: such as "cifar10" or "cars196:2.1.0".
      split: such as "test" or "train[80%:]".
      data_dir: folder of prepared data sets; empty takes TFDS's own default.
      image_key: name of the image feature.
      label_key: name of the feature with one integer.
      kept: folder to keep the labels in: they are found by reading the whole split, once.

    Attributes:
      labels: `[n]` int64.
      names: of the labels, as the data set has them; empty where it has none.

    Raises:
      UsageError: there is no such data set, split or feature, or a label cannot be read.
    """

    def __init__(
        self,
        name: str,
        split: str = "test",
        *,
        data_dir: str = "",
        image_key: str = "image",
        label_key: str = "label",
        kept: str | Path = "",
    ) -> None:
        self._split = TfdsSplit(name, split, data_dir)
        self._image_key, self._label_key = image_key, label_key
        shape = self._split.shapes.get(image_key)
        if shape is None or shape:
            raise UsageError(
                f"TFDS data set {self._split.name} has no feature {image_key!r} with an image; "
                f"with bytes it has {', '.join(sorted(self._split.shapes)) or 'none'}"
            )
        self.names = self._split.class_names.get(label_key, ())
        self.num_images = len(self._split)
        self.draws_captions = False
        self.holes = NO_HOLES
        parts = (self._split.identity, image_key, label_key)
        self.fingerprint = hashlib.blake2b(repr(parts).encode(), digest_size=16).hexdigest()
        self.numberings = (Numbering(self.num_images, self.fingerprint),)
        self.labels = self._read_labels(kept)

    def __len__(self) -> int:
        return self.num_images

    def image_id(self, example_id: int) -> int:
        """The image of an example: the one of the same number."""
        if not 0 <= example_id < self.num_images:
            raise IndexError(f"example {example_id} of {self.num_images}")
        return example_id

    def picture(self, image_id: int) -> bytes:
        """The image file.

        Raises:
          ReadError: the record cannot be read, or has no image.
        """
        return self._split.image(image_id, self._image_key)

    def caption(self, example_id: int, epoch: int = 0) -> str:
        """The name of the label; its number where it has none."""
        label = int(self.labels[self.image_id(example_id)])
        return self.names[label] if label < len(self.names) else str(label)

    def place(self, image_id: int) -> Place:
        """File of the record, and its number there."""
        return self._split.place(image_id)

    def truth(self) -> None:
        """Nobody knows which labels are wrong."""

    def _read_labels(self, folder: str | Path) -> np.ndarray:
        kept = Path(folder).expanduser() / f"labels-{self.fingerprint}.npy"
        if folder and kept.exists():
            return np.load(kept)
        labels = np.array([self._label(i) for i in range(self.num_images)], np.int64)
        if folder:
            content = io.BytesIO()
            np.save(content, labels)
            kept.parent.mkdir(parents=True, exist_ok=True)
            write_atomically(kept, content.getvalue())
        return labels

    def _label(self, image_id: int) -> int:
        try:
            found = self._split.integers(image_id)
        except ReadError as error:
            place = self._split.place(image_id)
            raise UsageError(
                f"the labels of {self._split.name} cannot be read: {place.key} of {place.shard}: "
                f"{error}; prepare the data set again"
            ) from error
        values = found.get(self._label_key, [])
        if len(values) != 1 or values[0] < 0:
            have = ", ".join(sorted(name for name, some in found.items() if len(some) == 1))
            raise UsageError(
                f"TFDS data set {self._split.name} has no label in feature {self._label_key!r} "
                f"({self._split.place(image_id).key}: {values}); with one integer it has "
                f"{have or 'none'}"
            )
        return values[0]
