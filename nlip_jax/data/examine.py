"""Looks at a sample of a data set: sizes, lengths, failures, and what a row costs."""

import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from nlip_jax.data.failures import ReadError
from nlip_jax.data.images.header import image_size
from nlip_jax.data.images.transform import ImageTransform
from nlip_jax.data.loading import STAGES
from nlip_jax.data.order import Draw
from nlip_jax.data.source import Picture, Place, Source
from nlip_jax.data.text.tokenizer import Tokenizer

_SHOWN = 3


@dataclass(frozen=True)
class Findings:
    """What a sample of examples looks like.

    Attributes:
      sampled: examples looked at.
      failed: how many of them could not be read, by kind.
      first_failed: an example of each kind: id, place, message.
      heights: `[k]` int64 pixels, of those that could be read.
      widths: `[k]` int64 pixels.
      image_bytes: `[k]` int64, of the stored image.
      caption_characters: `[k]` int64.
      tokens: `[k]` int64 with the special ones, uncut.
      context_length: tokens in a row.
      examples: some captions, with the places of their images.
      cpu_seconds: CPU time for one row, by `STAGES`.
    """

    sampled: int
    failed: Mapping[str, int]
    first_failed: Mapping[str, tuple[int, Place, str]]
    heights: np.ndarray
    widths: np.ndarray
    image_bytes: np.ndarray
    caption_characters: np.ndarray
    tokens: np.ndarray
    context_length: int
    examples: tuple[tuple[Place, str], ...]
    cpu_seconds: Mapping[str, float]

    @property
    def bad_share(self) -> float:
        """Part of the sample that could not be read."""
        return sum(self.failed.values()) / self.sampled

    @property
    def cut_share(self) -> float:
        """Part of the captions that do not fit into a row."""
        return float((self.tokens > self.context_length).mean()) if len(self.tokens) else 0.0

    @property
    def images_per_second_per_core(self) -> float:
        """Rows that one core makes in a second, worker transfer left out."""
        total = sum(self.cpu_seconds.values())
        return 1 / total if total else 0.0


def examine(
    source: Source,
    *,
    draw: Draw,
    transform: ImageTransform,
    tokenizer: Tokenizer,
    count: int,
    seed: int = 0,
) -> Findings:
    """Reads a random sample as training would, in its order, and measures it.

    Args:
      source: the data set.
      draw: which examples take part, and how they are drawn.
      transform: of the images.
      tokenizer: of the captions.
      count: examples to read; all of them where there are no more.
      seed: of the order.
    """
    count = min(count, len(draw))
    drawn, _ = draw.at(np.arange(count), seed=seed)
    failed, first, rows, examples = Counter(), {}, [], []
    seconds = np.zeros(len(STAGES))
    for example_id in map(int, drawn):
        try:
            row, caption, spent = _look(source, example_id, transform, tokenizer)
        except ReadError as error:
            failed[error.kind] += 1
            place = source.place(source.image_id(example_id))
            first.setdefault(error.kind, (example_id, place, str(error)))
            continue
        rows.append(row)
        seconds += spent
        if len(examples) < _SHOWN:
            examples.append((source.place(source.image_id(example_id)), caption))
    heights, widths, sizes, characters, tokens = np.array(rows, np.int64).reshape(-1, 5).T
    return Findings(
        sampled=count,
        failed=dict(failed),
        first_failed=first,
        heights=heights,
        widths=widths,
        image_bytes=sizes,
        caption_characters=characters,
        tokens=tokens,
        context_length=tokenizer.context_length,
        examples=tuple(examples),
        cpu_seconds=dict(zip(STAGES, seconds / max(len(rows), 1), strict=True)),
    )


def _look(
    source: Source, example_id: int, transform: ImageTransform, tokenizer: Tokenizer
) -> tuple[tuple[int, ...], str, np.ndarray]:
    times = [time.thread_time()]
    picture = source.picture(source.image_id(example_id))
    caption = source.caption(example_id)
    times.append(time.thread_time())
    square = transform.crop(picture, example_id=example_id, epoch=0)
    times.append(time.thread_time())
    transform.augment(square, example_id=example_id, epoch=0)
    times.append(time.thread_time())
    tokenizer.encode(caption)
    times.append(time.thread_time())
    row = (*_shape(picture), _num_bytes(picture), len(caption), len(tokenizer.pieces(caption)) + 2)
    return row, caption, np.diff(times)


def _shape(picture: Picture) -> tuple[int, int]:
    return image_size(picture) if isinstance(picture, bytes) else picture.shape[:2]


def _num_bytes(picture: Picture) -> int:
    return len(picture) if isinstance(picture, bytes) else picture.nbytes
