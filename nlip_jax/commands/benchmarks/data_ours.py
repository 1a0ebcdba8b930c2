"""Our pipeline, opened as a training run opens it."""

import itertools
import json
import sys
from collections.abc import Iterator

import numpy as np

from nlip_jax.commands.benchmarks.data_contender import serve
from nlip_jax.data.formats.tar import TarFormat
from nlip_jax.data.images.transform import ImageTransform
from nlip_jax.data.index.index import Index
from nlip_jax.data.loading import LoadPair
from nlip_jax.data.members import Ranges
from nlip_jax.data.order import Epochs, Stream
from nlip_jax.data.pipeline import Reading, open_batches
from nlip_jax.data.sources.indexed import IndexedSource
from nlip_jax.data.storage import Storage
from nlip_jax.data.text.sentence_piece import SentencePieceTokenizer

_ENDLESS = 10**9  # batches


def open_stage(
    *,
    index: str,
    tokenizer: str,
    context_length: int,
    size: int,
    scale: tuple[float, float],
    batch_size: int,
    workers: int,
    until: str = "host",
) -> Iterator[np.ndarray]:
    """Endless batches.

    Args:
      index: folder of the index of the shards.
      tokenizer: SentencePiece model.
      context_length: tokens of a row.
      size: of the crops, in pixels.
      scale: smallest and largest share of the area.
      batch_size: rows of a batch.
      workers: processes.
      until: how far examples go, a key of `STAGES`.

    Yields:
      As many things as there are rows in a batch: images, `[b, size, size, 3]` uint8, except where
      they go nowhere.
    """
    storage = Storage()
    source = IndexedSource(Index.open(index, storage=storage), TarFormat(), storage=storage)
    load = LoadPair(
        source=source,
        tokenizer=SentencePieceTokenizer(tokenizer, context_length=context_length),
        transform=ImageTransform(size=size, crop_scale=tuple(scale), flip=True),
    )
    order = Stream(
        draw=Epochs(Ranges(len(source))), batch_size=batch_size, seed=0, rows=np.arange(batch_size)
    )
    yield from STAGES[until](order, load, Reading(workers=workers, threads=1, prefetch=2))


def _rows(order: Stream, load: LoadPair, reading: Reading) -> Iterator[np.ndarray]:
    """Ids whose rows were made one after another in this thread, and forgotten at once."""
    del reading
    for batch in itertools.count():
        block = order.block(batch)
        for example_id, epoch in zip(block.ids.tolist(), block.epochs.tolist(), strict=True):
            load(example_id, epoch)
        yield block.ids


def _host(order: Stream, load: LoadPair, reading: Reading) -> Iterator[np.ndarray]:
    with open_batches(order=order, load=load, start=0, stop=_ENDLESS, reading=reading) as made:
        for batch in made:
            yield batch["image"]


def _device(order: Stream, load: LoadPair, reading: Reading) -> Iterator[np.ndarray]:
    from nlip_jax import sharding

    mesh = sharding.make_mesh()
    for images in _host(order, load, reading):
        yield sharding.to_devices({"image": images}, mesh)["image"].block_until_ready()


STAGES = {"rows": _rows, "host": _host, "device": _device}


if __name__ == "__main__":
    serve(open_stage(**json.loads(sys.argv[1])))
