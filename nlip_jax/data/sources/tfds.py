"""Data sets that TensorFlow Datasets has prepared; reading them takes no TensorFlow."""

import hashlib
import io
from pathlib import Path

import numpy as np

from nlip_jax.data.failures import ReadError
from nlip_jax.data.formats.captions import clean
from nlip_jax.data.source import NO_HOLES, Numbering, Place
from nlip_jax.data.sources.caption_modes import check_caption_mode, draw
from nlip_jax.data.sources.tfds_split import TfdsSplit
from nlip_jax.errors import UsageError
from nlip_jax.files import write_atomically


class TfdsSource:
    """A split of a TFDS data set that was prepared as ArrayRecord; threads may share it.

    It is opened as `tfds.data_source` does it, and its records are taken apart here, so that images
    stay encoded.

    Args:
      name: such as "coco_captions" or "coco_captions/2014:1.1.0".
      split: such as "train", "train[:1000]" or "train+validation".
      data_dir: folder of prepared data sets; empty takes TFDS's own default.
      image_key: name of the image feature; "/" leads into nested ones.
      caption_key: name of a feature with a text or a sequence of texts.
      captions: see `CAPTION_MODES`.
      seed: of the draws.
      counts: folder to keep the numbers of captions in. Only "expand" needs them, for sequences
        whose length varies: it reads the whole split to count.

    Raises:
      UsageError: there is no such data set, split or feature.
    """

    def __init__(
        self,
        name: str,
        split: str = "train",
        *,
        data_dir: str = "",
        image_key: str = "image",
        caption_key: str = "caption",
        captions: str = "expand",
        seed: int = 0,
        counts: str | Path = "",
    ) -> None:
        check_caption_mode(captions)
        self._split = TfdsSplit(name, split, data_dir)
        self._image_key, self._caption_key, self._seed = image_key, caption_key, seed
        _shape(self._split, image_key, longest=0)
        (length,) = _shape(self._split, caption_key, longest=1) or (1,)
        self.num_images = len(self._split)
        self.draws_captions = captions == "sample"
        self.holes = NO_HOLES
        identity = (self._split.identity, image_key, caption_key)
        self._starts = np.arange(self.num_images + 1)
        if captions == "expand":
            self._starts = (
                self._count(_hash(identity), counts) if length is None else self._starts * length
            )
        self.numberings = (Numbering(len(self), _hash(identity, captions)),)
        self.fingerprint = _hash(identity, captions, seed if self.draws_captions else None)

    def __len__(self) -> int:
        return int(self._starts[-1])

    def image_id(self, example_id: int) -> int:
        """The image of an example."""
        if not 0 <= example_id < len(self):
            raise IndexError(f"example {example_id} of {len(self)}")
        return int(self._starts.searchsorted(example_id, side="right")) - 1

    def picture(self, image_id: int) -> bytes:
        """The image file.

        Raises:
          ReadError: the record cannot be read, or has no image.
        """
        return self._split.image(image_id, self._image_key)

    def caption(self, example_id: int, epoch: int = 0) -> str:
        """The caption of an example; with "sample" another draw every epoch.

        Raises:
          ReadError: it cannot be read, or is blank.
        """
        image_id = self.image_id(example_id)
        texts = self._split.features(image_id).get(self._caption_key, [])
        try:
            if not self.draws_captions:
                (caption,) = clean([texts[example_id - int(self._starts[image_id])].decode()])
                return caption
            captions = clean(text.decode() for text in texts)
            return captions[int(draw(self._seed, epoch, example_id)[0] * len(captions))]
        except (ValueError, IndexError) as error:
            raise ReadError("unreadable_caption", "missing, blank, or no UTF-8") from error

    def place(self, image_id: int) -> Place:
        """File of the record, and its number there."""
        return self._split.place(image_id)

    def truth(self) -> None:
        """Nobody knows which real pairs are noise."""

    def _count(self, fingerprint: str, folder: str | Path) -> np.ndarray:
        """The first caption of every image, and the number of all, `[n + 1]` int64."""
        kept = Path(folder).expanduser() / f"caption-starts-{fingerprint}.npy"
        if folder and kept.exists():
            return np.load(kept)
        starts = np.zeros(self.num_images + 1, np.int64)
        np.cumsum([self._num_captions(i) for i in range(self.num_images)], out=starts[1:])
        if folder:
            content = io.BytesIO()
            np.save(content, starts)
            kept.parent.mkdir(parents=True, exist_ok=True)
            write_atomically(kept, content.getvalue())
        return starts

    def _num_captions(self, image_id: int) -> int:
        try:
            return len(self._split.features(image_id).get(self._caption_key, []))
        except ReadError as error:  # a number that is wrong would shift all that come after it
            place = self._split.place(image_id)
            raise UsageError(
                f"the captions of {self._split.name} cannot be counted: {place.key} of "
                f"{place.shard}: {error}; prepare the data set again or use captions='sample'"
            ) from error


def _shape(split: TfdsSplit, key: str, *, longest: int) -> tuple[int | None, ...]:
    """The shape of a feature, which has at most `longest` dimensions."""
    shape = split.shapes.get(key)
    if shape is None or len(shape) > longest:
        what = "an image" if longest == 0 else "a text or a sequence of texts"
        raise UsageError(
            f"TFDS data set {split.name} has no feature {key!r} with {what}; with bytes it has "
            f"{', '.join(sorted(split.shapes))}"
        )
    return shape


def _hash(*parts: object) -> str:
    return hashlib.blake2b(repr(parts).encode(), digest_size=16).hexdigest()
