"""Images and captions of indexed shards, read in place."""

import functools
import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

import numpy as np

from nlip_jax.data.failures import ReadError
from nlip_jax.data.formats.base import Format, OpenShard
from nlip_jax.data.index.index import Index
from nlip_jax.data.source import Numbering, Place, SampleName
from nlip_jax.data.sources.caption_modes import check_caption_mode, draw
from nlip_jax.data.storage import Storage
from nlip_jax.errors import UsageError

_Found = TypeVar("_Found")
_NAMED_SHARDS = 2  # whose names are kept: images are named in ascending order


class IndexedSource:
    """The `Source` of an index; threads may share it, and pickling it takes no open file along.

    Args:
      index: of the shards.
      format: of the shards.
      storage: where they are.
      captions: see `CAPTION_MODES`.
      probabilities: with "sample", how often each caption key is drawn from, anew every epoch, in
        proportion among those that have captions of the image. Without them the first that has
        any is drawn from.
      seed: of the draws.
      open_files: shards that are kept open at once.

    Raises:
      UsageError: an unknown mode, probabilities that do not fit, or an index of another format.
    """

    def __init__(
        self,
        index: Index,
        format: Format,
        *,
        storage: Storage,
        captions: str = "expand",
        probabilities: Sequence[float] = (),
        seed: int = 0,
        open_files: int = 64,
    ) -> None:
        check_caption_mode(captions)
        _check_probabilities(probabilities, format, captions)
        index.meta.check_format(format, Path(index.directory))
        self.index, self.format, self.storage = index, format, storage
        self.captions, self.probabilities = captions, tuple(map(float, probabilities))
        self.seed, self.open_files = seed, open_files
        self.draws_captions = captions == "sample"
        self.num_images = len(index.rows)
        self._starts = index.first_images if self.draws_captions else index.first_captions
        # Without a reference to this source, so that files are closed when it goes.
        opener = functools.partial(_open, index, format, storage)
        self._shard = functools.lru_cache(open_files)(opener)
        namer = functools.partial(_sample_names, index, format, storage)
        self._names = functools.lru_cache(_NAMED_SHARDS)(namer)

    def __reduce__(self):
        options = {
            name: getattr(self, name)
            for name in ("storage", "captions", "probabilities", "seed", "open_files")
        }
        return functools.partial(IndexedSource, self.index, self.format, **options), ()

    @functools.cached_property
    def fingerprint(self) -> str:
        """Hexadecimal; covers images, captions, holes and how captions are drawn."""
        draws = [self.seed, self.probabilities] if self.draws_captions else []
        return _hash(self.index.fingerprint, self.captions, *draws)

    @functools.cached_property
    def numberings(self) -> tuple[Numbering, ...]:
        """What example ids meant after every shard, and mean now; the draws do not matter."""
        prints = (_hash(fingerprint, self.captions) for fingerprint in self.index.fingerprints)
        return tuple(map(Numbering, self._starts[1:].tolist(), prints))

    @functools.cached_property
    def holes(self) -> np.ndarray:
        """Examples of shards that are gone, sorted [start, stop), `[k, 2]` int64."""
        return self.index.holes(self._starts)

    def __len__(self) -> int:
        return int(self._starts[-1])

    def image_id(self, example_id: int) -> int:
        """The image of an example."""
        if not 0 <= example_id < len(self):
            raise IndexError(f"example {example_id} of {len(self)}")
        if self.draws_captions:
            return int(example_id)
        return int(self.index.caption_starts.searchsorted(example_id, side="right")) - 1

    def image_ids(self, example_ids: np.ndarray) -> np.ndarray:
        """The images of many examples, `[n]` int64; numbers that are none are refused as above."""
        example_ids = np.asarray(example_ids, np.int64)
        for end in (example_ids.min(initial=0), example_ids.max(initial=0)):
            if len(example_ids) and not 0 <= end < len(self):
                raise IndexError(f"example {end} of {len(self)}")
        if self.draws_captions:
            return example_ids
        return self.index.caption_starts.searchsorted(example_ids, side="right") - 1

    def picture(self, image_id: int) -> bytes:
        """The image file as it lies in its shard.

        Raises:
          ReadError: it cannot be read, or is empty.
        """
        data = self._read(image_id, lambda shard, row: shard.image(row))
        if not data:
            raise ReadError("empty_image", "0 bytes")
        return data

    def caption(self, example_id: int, epoch: int = 0) -> str:
        """The caption of an example; with "sample" another draw every epoch.

        Raises:
          ReadError: it cannot be read, or is not as it was indexed.
        """
        image_id = self.image_id(example_id)
        start, stop = self.index.caption_starts[image_id : image_id + 2].tolist()
        by_key = self._read(image_id, lambda shard, row: shard.captions(row))
        chosen = next(filter(None, by_key), [])
        if len(chosen) != stop - start:
            raise ReadError(
                "unreadable_caption", f"{len(chosen)} captions, {stop - start} were indexed"
            )
        if not self.draws_captions:
            return chosen[example_id - start]
        which_key, which = draw(self.seed, epoch, example_id)
        if self.probabilities:
            chosen = _pick(by_key, self.probabilities, which_key)
        return chosen[int(which * len(chosen))]

    def place(self, image_id: int) -> Place:
        """Shard and key of an image; its number in the shard where the key cannot be read."""
        number = self.index.shard_number(image_id)
        try:
            key = self._read(image_id, lambda shard, row: shard.key(row))
        except ReadError:
            key = f"image {image_id - self.index.first_images[number]}"
        return Place(self.index.shards[number].path, key)

    def shard_names(self, image_ids: np.ndarray) -> list[str]:
        """The shards of many images."""
        numbers = self.index.first_images.searchsorted(image_ids, side="right") - 1
        return [self.index.shards[number].path for number in numbers]

    def sample_names(self, image_ids: np.ndarray) -> list[SampleName]:
        """The names of many images; those of a whole shard are read at once and kept a while."""
        numbers = self.index.first_images.searchsorted(image_ids, side="right") - 1
        return [
            self._names(number)[image_id - self.index.first_images[number]]
            for image_id, number in zip(np.asarray(image_ids), numbers, strict=True)
        ]

    def truth(self) -> None:
        """Nobody knows which real pairs are noise."""

    def _read(self, image_id: int, read: Callable[[OpenShard, np.void], _Found]) -> _Found:
        number = self.index.shard_number(image_id)
        try:
            return read(self._shard(number), self.index.rows[image_id])
        except OSError as error:
            raise ReadError("shard_unreadable", str(error)) from error


def _open(index: Index, format: Format, storage: Storage, number: int) -> OpenShard:
    """Opens a shard; pushed out of a cache, it is closed when its last reader lets go."""
    shard = index.shards[number]
    if shard.removed:
        raise ReadError("shard_unreadable", "the shard is gone, its ids are a hole")
    if change := shard.change(storage.status(shard.path)):
        raise ReadError("shard_unreadable", f"the shard changed since it was indexed: {change}")
    return format.open(shard.path, storage)


def _sample_names(index: Index, format: Format, storage: Storage, number: int) -> list[SampleName]:
    """The names of all images of a shard; their numbers in it where they cannot be read."""
    start, stop = index.first_images[number : number + 2].tolist()
    try:
        shard = _open(index, format, storage, number)
        if hasattr(shard, "sample_names"):
            return shard.sample_names(index.rows[start:stop])
        return [SampleName(shard.key(row)) for row in index.rows[start:stop]]
    except (OSError, ReadError):
        return [SampleName(f"image {place}") for place in range(stop - start)]


def _check_probabilities(probabilities: Sequence[float], format: Format, captions: str) -> None:
    if not probabilities:
        return
    if captions != "sample":
        raise UsageError(
            f"caption probabilities {list(probabilities)}: only captions='sample' draws, "
            f"captions={captions!r} takes all"
        )
    if len(probabilities) != format.num_caption_keys:
        raise UsageError(
            f"caption probabilities {list(probabilities)}: need one for each of the "
            f"{format.num_caption_keys} caption keys"
        )
    if not all(0 < probability < float("inf") for probability in probabilities):
        raise UsageError(
            f"caption probabilities {list(probabilities)}: must be finite and above 0; leave out "
            "the key of one that should never be drawn"
        )


def _pick(by_key: list[list[str]], probabilities: Sequence[float], where: float) -> list[str]:
    """The captions of one key: those at a place in [0, 1) if all that are there share it."""
    there = [(texts, p) for texts, p in zip(by_key, probabilities, strict=True) if texts]
    left = where * sum(p for _, p in there)
    for texts, probability in there:
        left -= probability
        if left < 0:
            return texts
    return there[-1][0]


def _hash(*parts: object) -> str:
    return hashlib.blake2b(repr(parts).encode(), digest_size=16).hexdigest()
