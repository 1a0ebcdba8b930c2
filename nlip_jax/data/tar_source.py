"""Images and captions of indexed tar shards, read in place."""

import functools
import hashlib
import os
import tarfile

import numpy as np

from nlip_jax.data.captions import caption_member, parse_captions
from nlip_jax.data.decode import ReadError, decode_image
from nlip_jax.data.index import Index
from nlip_jax.data.shards import Shard
from nlip_jax.data.tar_members import BLOCK
from nlip_jax.errors import UsageError

CAPTION_MODES = ("expand", "sample")


class TarSource:
    """The `Source` of an index; threads may share it, and pickling it takes no open file along.

    Args:
      index: of the shards.
      captions: "expand" makes every caption an example, those of an image beside one another;
        "sample" makes every image an example and draws one of its captions anew every epoch.
      seed: of the draws.
      open_files: shards that are kept open at once.

    Raises:
      UsageError: `captions` is neither.
    """

    def __init__(
        self, index: Index, captions: str = "expand", seed: int = 0, open_files: int = 64
    ) -> None:
        if captions not in CAPTION_MODES:
            raise UsageError(f"captions={captions!r}: must be one of {', '.join(CAPTION_MODES)}")
        self.index, self.captions, self.seed, self.open_files = index, captions, seed, open_files
        identity = [index.fingerprint, captions, *([seed] if captions == "sample" else [])]
        self.fingerprint = hashlib.blake2b(repr(identity).encode(), digest_size=16).hexdigest()
        self.num_images = len(index.rows)
        self._length = self.num_images if captions == "sample" else int(index.caption_starts[-1])
        self.draws_captions = captions == "sample"
        self._field = caption_member(index.caption_key)[1]
        self._open = functools.lru_cache(open_files)(functools.partial(_OpenShard, index.shards))

    def __reduce__(self):
        """Travels without open files."""
        return TarSource, (self.index, self.captions, self.seed, self.open_files)

    def __len__(self) -> int:
        return self._length

    def image_id(self, example_id: int) -> int:
        """The image of an example."""
        if not 0 <= example_id < self._length:
            raise IndexError(f"example {example_id} of {self._length}")
        if self.captions == "sample":
            return int(example_id)
        return int(self.index.caption_starts.searchsorted(example_id, side="right")) - 1

    def image_bytes(self, image_id: int) -> bytes:
        """The image file as it lies in its shard."""
        shard, block, length, _, _ = self.index.rows[image_id].item()
        return self._read(shard, block, length)

    def image(self, image_id: int) -> np.ndarray:
        """The decoded image, `[h, w, 3]` uint8 RGB.

        Raises:
          ReadError: it cannot be read or decoded.
        """
        data = self.image_bytes(image_id)
        try:
            return decode_image(data)
        except ReadError as error:
            shard, block, *_ = self.index.rows[image_id].item()
            raise ReadError(
                f"image {image_id} {error}: {self._place(shard, block)}; repair or remove it there "
                "and start in another --workdir"
            ) from error

    def caption(self, example_id: int, epoch: int = 0) -> str:
        """The caption of an example; with "sample" another draw every epoch.

        Raises:
          ReadError: it cannot be read.
        """
        image_id = self.image_id(example_id)
        start, stop = self.index.caption_starts[image_id : image_id + 2].tolist()
        shard, _, _, block, length = self.index.rows[image_id].item()
        which = example_id - start
        if self.captions == "sample":
            which = _draw(f"{self.seed} {epoch} {example_id}", stop - start)
        data = self._read(shard, block, length)
        try:
            return parse_captions(data, self._field)[which]
        except (ValueError, IndexError) as error:
            raise ReadError(
                f"caption {example_id} is not as it was indexed: {self._place(shard, block)}"
            ) from error

    def truth(self) -> None:
        """Nobody knows which real pairs are noise."""

    def _read(self, shard: int, block: int, length: int) -> bytes:
        data = self._open(shard).read(block, length)
        if len(data) != length:
            raise ReadError(f"{length - len(data)} bytes are missing: {self._place(shard, block)}")
        return data

    def _place(self, shard: int, block: int) -> str:
        """Member, shard and offset, for messages."""
        header = self._open(shard).read(block - 1, BLOCK)
        try:
            member = tarfile.TarInfo.frombuf(header, "utf-8", "surrogateescape").name
        except tarfile.HeaderError:
            member = "a member without a header"
        return f"{member} in shard {self.index.shards[shard].path} at byte {block * BLOCK}"


class _OpenShard:
    """A shard to read from. Pushed out of a cache, it is closed when its last reader lets go."""

    def __init__(self, shards: tuple[Shard, ...], number: int) -> None:
        shard = shards[number]
        try:
            self._descriptor = os.open(shard.path, os.O_RDONLY | os.O_CLOEXEC)
        except OSError as error:
            raise ReadError(f"shard {shard.path} cannot be opened ({error.strerror})") from error
        shard.check(os.fstat(self._descriptor))

    def __del__(self) -> None:
        if hasattr(self, "_descriptor"):
            os.close(self._descriptor)

    def read(self, block: int, length: int) -> bytes:
        return os.pread(self._descriptor, length, block * BLOCK)


def _draw(key: str, count: int) -> int:
    """One of `count`, decided by the key alone."""
    return int.from_bytes(hashlib.blake2b(key.encode(), digest_size=8).digest(), "big") % count
