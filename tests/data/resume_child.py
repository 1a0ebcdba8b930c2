"""Reads the stream of test_resume.py with worker processes, writing down rows until killed."""

import hashlib
import json
import os
import sys
from pathlib import Path

import numpy as np

from nlip_jax.data.formats.tar import TarFormat
from nlip_jax.data.images.transform import ImageTransform
from nlip_jax.data.index.index import Index
from nlip_jax.data.index.update import update_index
from nlip_jax.data.loading import LoadPair
from nlip_jax.data.members import Ranges
from nlip_jax.data.order import Epochs, Stream
from nlip_jax.data.pipeline import Reading, open_batches
from nlip_jax.data.sources.indexed import IndexedSource
from nlip_jax.data.storage import Storage

BATCH, NUM_BATCHES, PER_SHARD = 8, 220, 30


class Letters:
    """A tokenizer of a kind: the first letters of a caption."""

    def encode(self, text: str) -> np.ndarray:
        return np.frombuffer(text[:8].ljust(8).encode(), np.uint8).astype(np.int32)


def make_source() -> list[dict[str, bytes]]:
    """Members of two shards; every seventh image is cut off."""
    from tars import encode, pixels

    shards = []
    for shard in range(2):
        members = {}
        for i in range(shard * PER_SHARD, (shard + 1) * PER_SHARD):
            data = encode(pixels(i, 40 + i % 5, 48))
            members[f"{i:05d}.jpg"] = data[: len(data) // 3] if i % 7 == 3 else data
            members[f"{i:05d}.txt"] = f"{i} is the number of this picture".encode()
        shards.append(members)
    return shards


def open_source(folder: Path) -> IndexedSource:
    shards = sorted(str(path) for path in folder.glob("*.tar"))
    if not (folder / "index").exists():
        update_index(shards, TarFormat(), folder / "index", storage=Storage(), workers=1)
    index = Index.open(folder / "index", storage=Storage())
    return IndexedSource(index, TarFormat(), storage=Storage())


def make_order(folder: Path, rows: np.ndarray | None = None) -> Stream:
    draw = Epochs(Ranges(len(open_source(folder))))
    return Stream(
        draw=draw, batch_size=BATCH, seed=1, rows=np.arange(BATCH) if rows is None else rows
    )


def stream(folder: Path, *, start: int, stop: int, rows=None, **reading):
    """Batches [start, stop) of some rows."""
    transform = ImageTransform(size=16, crop_scale=(0.3, 1.0), flip=True, seed=1)
    load = LoadPair(source=open_source(folder), tokenizer=Letters(), transform=transform)
    with open_batches(
        order=make_order(folder, rows),
        load=load,
        start=start,
        stop=stop,
        reading=Reading(**({"threads": 0} | reading)),
    ) as batches:
        yield from batches


def main(folder: Path, log: Path) -> None:
    done = log.read_text() if log.exists() else ""
    done = done[: done.rfind("\n") + 1]  # a line that a kill cut off
    log.write_text(done)
    position = done.count("\n")
    with log.open("a") as file:
        for batch in stream(folder, start=position, stop=80, workers=2, threads=1):
            columns = (batch[name] for name in ("example_id", "image", "tokens"))
            rows = [
                (int(i), hashlib.blake2b(a.tobytes() + t.tobytes(), digest_size=8).hexdigest())
                for i, a, t in zip(*columns, strict=True)
            ]
            file.write(json.dumps([position, rows]) + "\n")
            file.flush()
            os.fsync(file.fileno())
            position += 1
            print(position, flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
