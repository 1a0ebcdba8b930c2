"""The index: how fast shards are scanned, and what opening a large one costs."""

import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from nlip_jax.data.formats.tar import TarFormat
from nlip_jax.data.index.layout import ROWS, START, STARTS, Meta, write_meta
from nlip_jax.data.index.shards import Shard
from nlip_jax.data.index.update import update_index
from nlip_jax.data.storage import Storage
from nlip_jax.errors import RunError

_BLOCK = 512
_CAPTION = "a photograph of a small brown dog on a green meadow in the sun"
_OPEN = """
import json, sys, time
from nlip_jax.data.formats.tar import TarFormat
from nlip_jax.data.index.index import Index
from nlip_jax.data.sources.indexed import IndexedSource
from nlip_jax.data.storage import Storage

begun = time.perf_counter()
storage = Storage()
source = IndexedSource(Index.open(sys.argv[1], storage=storage), TarFormat(), storage=storage)
found = [len(source), source.image_id(len(source) - 1), source.fingerprint]
found.append(len(source.numberings))
seconds = time.perf_counter() - begun
status = open("/proc/self/status").read()  # getrusage would count the parent's memory
kilobytes = int(status.partition("VmHWM:")[2].split()[0])
print(json.dumps({"seconds": seconds, "rss_mb": kilobytes / 1024, "examples": found[0]}))
"""


def run(
    num_members: int = 1_000_000,
    num_shards: int = 20,
    num_examples: int = 100_000_000,
    images_per_shard: int = 10_000,
) -> dict[str, float]:
    """Scans tars made on the spot, and opens an index made without any.

    The tars are in the layout of img2dataset, with images of a few bytes; two processes scan them
    and read the captions of both .json and .txt members. Opening is up to the last example's
    image, the fingerprint and all numberings, in a fresh process, after its imports; the memory is
    all of that process.

    Args:
        num_members: of all tars together.
        num_shards: number of tars.
        num_examples: of the large index.
        images_per_shard: in the large index.

    Returns:
        Metrics by name.

    Raises:
        RunError: something other than what was written was found.
    """
    with tempfile.TemporaryDirectory() as name:
        seconds, members = _scan(Path(name), num_members // 3 // num_shards, num_shards)
    with tempfile.TemporaryDirectory() as name:
        opened = _open(Path(name), num_examples, images_per_shard)
    return {
        "data/index_members_per_second": members / seconds,
        "data/index_million_seconds": 1e6 * seconds / members,
        "data/index_open_seconds": opened["seconds"],
        "data/index_open_rss_mb": opened["rss_mb"],
    }


def _scan(folder: Path, samples_per_shard: int, num_shards: int) -> tuple[float, int]:
    """Seconds that indexing takes, and the number of members."""
    shards = [str(folder / f"{number:05d}.tar") for number in range(num_shards)]
    for number, path in enumerate(shards):
        _write_tar(path, number, samples_per_shard)
    tar = TarFormat(("json:caption", "txt"))
    begun = time.perf_counter()
    update = update_index(shards, tar, folder / "index", storage=Storage(), workers=2)
    seconds = time.perf_counter() - begun
    num_samples = num_shards * samples_per_shard
    if update.index.counts["captions"] != num_samples:
        raise RunError(f"{update.index.counts} of {num_samples} samples were indexed")
    return seconds, 3 * num_samples


def _open(folder: Path, num_examples: int, images_per_shard: int) -> dict[str, float]:
    """What opening an index without shards costs; an image has one caption."""
    counts = {"images": images_per_shard, "captions": images_per_shard}
    shards = tuple(
        Shard(f"/data/train/{number:05d}.tar", 1 << 30, 1 << 60, f"{number:032x}", False, counts)
        for number in range(num_examples // images_per_shard)
    )
    tar = TarFormat()
    with open(folder / ROWS, "wb") as rows:
        rows.truncate(tar.row.itemsize * num_examples)  # nobody looks at them: a sparse file
    with open(folder / STARTS, "wb") as starts:
        for start in range(0, num_examples + 1, 1 << 20):
            stop = min(start + (1 << 20), num_examples + 1)
            starts.write(np.arange(start, stop, dtype=START).tobytes())
    write_meta(folder, Meta(tar.name, tar.identity(), tar.row, shards, {}))
    command = [sys.executable, "-c", _OPEN, str(folder)]
    opened = json.loads(subprocess.run(command, check=True, capture_output=True).stdout)
    if opened["examples"] != num_examples:
        raise RunError(f"{opened['examples']} of {num_examples} examples were found")
    return opened


def _write_tar(path: str, number: int, num_samples: int) -> None:
    with open(path, "wb", buffering=1 << 20) as file:
        for i in range(num_samples):
            key = f"{number:05d}{i:05d}"
            record = {"caption": _CAPTION, "key": key, "status": "success", "width": 256}
            for extension, content in (
                ("jpg", b"\xff\xd8\xff"),
                ("txt", _CAPTION.encode()),
                ("json", json.dumps(record).encode()),
            ):
                file.write(_header(f"{key}.{extension}", len(content)))
                file.write(content.ljust(_BLOCK, b"\0"))
        file.write(bytes(2 * _BLOCK))


def _header(name: str, size: int) -> bytes:
    """A ustar header; `tarfile` takes ten times as long."""
    before = b"%-100b0000644\0%016d%011o\0%011o\0" % (name.encode(), 0, size, 0)
    before = before.replace(b" ", b"\0")
    after = b"0" + bytes(100) + b"ustar\00000"
    checksum = sum(before) + sum(after) + 8 * ord(" ")
    return (before + b"%06o\0 " % checksum + after).ljust(_BLOCK, b"\0")
