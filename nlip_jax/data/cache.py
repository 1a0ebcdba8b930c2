"""Keeps decoded images in memory, so that training does not decode or draw them every epoch."""

import contextlib
import functools
import logging
import multiprocessing
from collections.abc import Callable, Iterator
from multiprocessing.connection import Connection

import numpy as np

from nlip_jax.data.failures import ReadError
from nlip_jax.data.images.decode import MAX_PIXELS, to_pixels
from nlip_jax.data.source import Picture, Source, SourceView
from nlip_jax.data.worker_process import die_with_parent
from nlip_jax.errors import RunError, UsageError

_LOG = logging.getLogger(__name__)


class MemoryCache(SourceView):
    """Any source with its first images in memory: the same pixels, captions and ids, sooner.

    An image that cannot be read is not kept, so that each reading of it fails as before.

    Images from 0 on are kept until the next would exceed the bound; the others are read from the
    inner source each time. The captions of kept images are kept as well once they were asked for,
    unless the source draws them anew. Kept images are read-only. Pickling takes the images along,
    so every worker process that receives the cache holds a copy of its own.

    Args:
      source: where the images come from.
      max_bytes: bound of the pixels kept, in bytes.
      max_pixels: of an image; larger ones are not decoded.

    Raises:
      UsageError: `max_bytes` is negative.
    """

    def __init__(
        self, source: Source, max_bytes: int, *, max_pixels: int = MAX_PIXELS
    ) -> None:
        if max_bytes < 0:
            raise UsageError(f"max_bytes={max_bytes}: the memory for images cannot be negative")
        super().__init__(source)
        self.max_bytes, self.max_pixels = max_bytes, max_pixels
        self._images: np.ndarray | list[np.ndarray] = []
        self._unreadable: frozenset[int] = frozenset()
        self._captions: dict[int, str] = {}

    @property
    def num_cached(self) -> int:
        """Number of images in memory: those with ids in [0, num_cached)."""
        return len(self._images)

    def picture(self, image_id: int) -> Picture:
        """The decoded image, `[h, w, 3]` uint8 RGB; as it is stored where it is not kept."""
        if 0 <= image_id < len(self._images) and image_id not in self._unreadable:
            return self._images[image_id]
        return self.source.picture(image_id)

    def caption(self, example_id: int, epoch: int = 0) -> str:
        """The caption of an example."""
        caption = self._captions.get(example_id)
        if caption is not None:
            return caption
        caption = self.source.caption(example_id, epoch)
        if not self.draws_captions and self.image_id(example_id) < self.num_cached:
            self._captions[example_id] = caption
        return caption

    def fill(
        self,
        num_processes: int = 0,
        *,
        chunk_size: int = 256,
        on_progress: Callable[[int, int], None] = lambda done, total: None,
    ) -> None:
        """Reads as many images as the bound allows, and logs how many that are.

        Any exception, `KeyboardInterrupt` and those of `on_progress` included, ends the worker
        processes and leaves the cache as it was.

        Args:
          num_processes: worker processes that read; 0 reads in this one.
          chunk_size: images that a worker sends at once.
          on_progress: called after every chunk with the images kept so far and the number that
            will be; where shapes differ that number is an estimate.

        Raises:
          UsageError: a negative number of processes, or a chunk without images.
          RunError: a worker process was lost.
        """
        if num_processes < 0 or chunk_size < 1:
            raise UsageError(
                f"num_processes={num_processes}, chunk_size={chunk_size}: "
                "need 0 or more processes and 1 or more images in a chunk"
            )
        kept = _Kept(self.num_images, self.max_bytes)
        chunks = _chunks(self.num_images, chunk_size)
        read = functools.partial(_decoded, self.source, self.max_pixels)
        with contextlib.closing(_read(read, chunks, num_processes)) as arriving:
            for images in arriving:
                fit = all(kept.add(image) for image in images)
                on_progress(kept.count, kept.expected if fit else kept.count)
                if not fit:
                    break
        self._images = kept.freeze()
        self._unreadable = frozenset(kept.unreadable)
        _LOG.info(
            "%d of %d images are kept in memory (%.1f of at most %.1f MB)%s",
            kept.count,
            self.num_images,
            kept.num_bytes / 1e6,
            self.max_bytes / 1e6,
            "" if kept.count == self.num_images else "; the others are read each time",
        )


class _Kept:
    """Images 0, 1, ... within a bound: one array as long as all shapes agree, else a list."""

    def __init__(self, num_images: int, max_bytes: int) -> None:
        self.count = 0
        self.num_bytes = 0
        self.unreadable: list[int] = []
        self._num_images = num_images
        self._max_bytes = max_bytes
        self._images: np.ndarray | list[np.ndarray] = []

    @property
    def expected(self) -> int:
        """Number of images that will fit if the others are like those so far."""
        return min(self._num_images, self._max_bytes * self.count // max(self.num_bytes, 1))

    def add(self, image: np.ndarray | None) -> bool:
        """Keeps a copy of the next image; False where the bound leaves no room for it."""
        if image is None:  # its place is taken by an image of no use, of a shape that fits
            self.unreadable.append(self.count)
            image = np.zeros_like(self._images[0]) if self.count else np.zeros((1, 1, 3), np.uint8)
        if self.num_bytes + image.nbytes > self._max_bytes:
            return False
        if self.count == 0:
            room = min(self._num_images, self._max_bytes // image.nbytes)
            self._images = np.empty((room, *image.shape), np.uint8)  # pages come when written
        elif isinstance(self._images, np.ndarray) and image.shape != self._images.shape[1:]:
            self._images = list(self._images[: self.count])
        if isinstance(self._images, np.ndarray):
            self._images[self.count] = image
        else:
            self._images.append(image.copy())
        self.count += 1
        self.num_bytes += image.nbytes
        return True

    def freeze(self) -> np.ndarray | list[np.ndarray]:
        """The images, read-only."""
        images = self._images[: self.count]
        for part in [images] if isinstance(images, np.ndarray) else images:
            part.flags.writeable = False
        return images


def _chunks(num_images: int, chunk_size: int) -> list[range]:
    return [
        range(start, min(start + chunk_size, num_images))
        for start in range(0, num_images, chunk_size)
    ]


def _read(
    read: Callable[[int], np.ndarray | None], chunks: list[range], num_processes: int
) -> Iterator[list[np.ndarray | None]]:
    """The images of every chunk, in order; closing the iterator ends the processes."""
    if num_processes == 0:
        for chunk in chunks:
            yield [read(image_id) for image_id in chunk]
        return
    # Workers take turns and each has a pipe, so chunks arrive in order, a slow reader holds the
    # workers back, and a lost worker is an end of file. Pipes, unlike named shared memory, are
    # gone with their processes.
    context = multiprocessing.get_context("spawn")
    workers, pipes = [], []
    try:
        for turn in range(min(num_processes, len(chunks))):
            pipe, far_end = context.Pipe(duplex=False)
            pipes.append(pipe)
            work = (read, chunks[turn::num_processes], far_end)
            worker = context.Process(target=_work, args=work, daemon=True)
            worker.start()
            workers.append(worker)
            far_end.close()
        for number in range(len(chunks)):
            yield _receive(pipes[number % num_processes])
    finally:
        for worker in workers:
            worker.terminate()
        for worker in workers:
            worker.join()
        for pipe in pipes:
            pipe.close()


def _decoded(source: Source, max_pixels: int, image_id: int) -> np.ndarray | None:
    """The pixels of an image; None where it cannot be read."""
    try:
        return to_pixels(source.picture(image_id), max_pixels=max_pixels)
    except ReadError:
        return None


def _receive(pipe: Connection) -> list[np.ndarray | None]:
    try:
        answer = pipe.recv()
    except EOFError:
        raise RunError(
            "a worker process that fills the image cache was lost: it may have run out of memory "
            "(use fewer processes), or see its message above (0 processes show the error itself)"
        ) from None
    if isinstance(answer, Exception):
        raise answer
    return answer


def _work(
    read: Callable[[int], np.ndarray | None], chunks: list[range], pipe: Connection
) -> None:
    """The life of a worker: sends the images of its chunks, or what stopped it."""
    die_with_parent()
    try:
        for chunk in chunks:
            pipe.send([read(image_id) for image_id in chunk])
    except Exception as error:  # raised again in the parent
        pipe.send(error)
