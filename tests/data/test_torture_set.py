"""The whole torture set in one folder: each bad thing counted under its kind, nothing else lost.

Tars with every fault that the web and broken downloads are known for lie among good examples. They
are indexed, and everything that the index kept is read as training reads it.
"""

import hashlib
import io
import itertools
import json
import struct
import tarfile
import zlib
from collections import Counter
from pathlib import Path

import numpy as np
from PIL import Image
from tars import encode, pixels

from nlip_jax.data.formats.tar import TarFormat
from nlip_jax.data.images.transform import ImageTransform
from nlip_jax.data.index.index import Index
from nlip_jax.data.index.update import update_index
from nlip_jax.data.loading import LoadPair
from nlip_jax.data.members import Ranges
from nlip_jax.data.order import Epochs, Pass, Stream
from nlip_jax.data.pipeline import Reading, open_batches, take_row_info
from nlip_jax.data.quarantine import Quarantine, read_quarantine
from nlip_jax.data.sources.indexed import IndexedSource
from nlip_jax.data.storage import Storage

BATCH = 8
IMAGE = Image.fromarray(pixels(1, 48, 64))
JPEG = encode(IMAGE, quality=95)
# "A black dog" between marks of direction; a family and a dog of joined characters.
RIGHT_TO_LEFT = "\u200f\u05db\u05dc\u05d1 \u05e9\u05d7\u05d5\u05e8\u200f"
EMOJI = "\U0001f469\u200d\U0001f469\u200d\U0001f467 \U0001f415\u200d\U0001f9ba"


def png_header(width: int, height: int) -> bytes:
    body = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    header = struct.pack(">I", 13) + body + struct.pack(">I", zlib.crc32(body))
    return b"\x89PNG\r\n\x1a\n" + header + struct.pack(">I", 0) + b"IDAT" + bytes(4)


def deep() -> bytes:
    """A gray PNG of 16 bits."""
    gray = np.arange(48 * 64, dtype=np.uint16).reshape(48, 64) * 20
    return encode(Image.fromarray(gray), "PNG")


def tar_of(members: list) -> bytes:
    """A tar of (name, bytes) and of ready-made `TarInfo`s without content."""
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as tar:
        for member in members:
            if isinstance(member, tarfile.TarInfo):
                tar.addfile(member)
                continue
            name, data = member
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return file.getvalue()


def link(name: str, target: str, kind: bytes) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, target
    return info


# Images that can be read, whatever is odd about them: key -> (name of the member, its bytes).
ODD_IMAGES = {
    "cmyk": ("cmyk.jpg", encode(IMAGE.convert("CMYK"), quality=95)),
    "sixteen_bit": ("sixteen_bit.png", deep()),
    "animated_gif": (
        "animated_gif.jpg",
        encode(IMAGE, "GIF", save_all=True, append_images=[IMAGE.rotate(90), IMAGE.rotate(180)]),
    ),
    "animated_webp": (
        "animated_webp.webp",
        encode(IMAGE, "WEBP", save_all=True, append_images=[IMAGE.rotate(180)]),
    ),
    "png_named_jpg": ("png_named_jpg.jpg", encode(IMAGE, "PNG")),
    "jpeg_named_png": ("jpeg_named_png.png", JPEG),
    "palette": ("palette.png", encode(IMAGE.convert("P"), "PNG")),
    "alpha": ("alpha.png", encode(IMAGE.convert("RGBA"), "PNG")),
    "../../above": ("../../above.jpg", JPEG),  # a name is a key and no path
    "/tmp/nlip_jax_absolute": ("/tmp/nlip_jax_absolute.jpg", JPEG),
}

# Images that fail when they are read: key -> (bytes, kind of failure).
FAILING_IMAGES = {
    "truncated": (JPEG[: len(JPEG) // 2], "truncated_image"),
    "html": (b"<!DOCTYPE html><html><body>404 Not Found</body></html>", "not_an_image"),
    "huge_by_its_header": (png_header(50_000, 50_000), "too_many_pixels"),
    "nested_tar": (tar_of([("inner.jpg", JPEG), ("inner.txt", b"inside")]), "not_an_image"),
    "zeros": (bytes(1000), "not_an_image"),
}

# Captions that can be read: key -> (bytes of the .txt, what a tokenizer gets).
READABLE_CAPTIONS = {
    "long": (b"word " * 20_000, ("word " * 20_000).strip()),
    "nul": (b"a\0b", "a b"),
    "right_to_left": (RIGHT_TO_LEFT.encode(), RIGHT_TO_LEFT),
    "emoji": (EMOJI.encode(), EMOJI),
    "byte_order_mark": ("\ufeffa dog".encode(), "a dog"),
}

# What the index leaves out: count -> members, as many as that count.
LEFT_OUT = {
    "unusable_image": [[("empty.jpg", b""), ("empty.txt", b"zero bytes of image")]],
    "blank_caption": [
        [("no_characters.jpg", JPEG), ("no_characters.txt", b"")],
        [("only_nul.jpg", JPEG), ("only_nul.txt", b"\0\0")],
    ],
    "unreadable_caption": [[("no_utf8.jpg", JPEG), ("no_utf8.txt", b"caf\xe9 \xff\xfe")]],
    "without_caption": [[("alone.jpg", JPEG)]],
    "without_image": [[("orphan.txt", b"a caption of nothing")]],
    "duplicate": [[("cmyk.jpg", JPEG)]],  # the shard has one of this key before
    "not_a_file": [
        [link("hard.jpg", "cmyk.jpg", tarfile.LNKTYPE)],
        [link("../../soft.txt", "/etc/passwd", tarfile.SYMTYPE)],
        [link("device.jpg", "", tarfile.CHRTYPE)],
    ],
    "other": [[("nested.tar", tar_of([("inner.jpg", JPEG)]))], [("../../evil.sh", b"exit 1")]],
}

# Shards that are no shards, and the word that says why.
UNREADABLE_SHARDS = {
    "90000.tar": (b"<html>429 Too Many Requests</html>" * 40, "no tar file"),
    "90001.tar": (b"", "0 bytes"),
    "90002.tar": (b"\x1f\x8b" + bytes(1000), "gzip"),
}


def pair(key: str, image: bytes, text: bytes) -> list[tuple[str, bytes]]:
    return [(f"{key}.jpg", image), (f"{key}.txt", text)]


class Characters:
    """A tokenizer of a kind that keeps what it was given."""

    def __init__(self, seen: dict[str, None]):
        self.seen = seen

    def encode(self, text: str) -> np.ndarray:
        self.seen[text] = None
        text.encode()  # half a surrogate pair would fail in any real tokenizer
        return np.array([len(text)], np.int32)


def write_shards(folder: Path) -> None:
    """The torture set: three tars that can be indexed, three that cannot, and strangers."""
    good = [pair(f"good{i:02d}", JPEG, f"good picture {i}".encode()) for i in range(12)]
    bad = [
        *([image, (f"{key}.txt", f"odd: {key}".encode())] for key, image in ODD_IMAGES.items()),
        *(pair(key, data, b"fails") for key, (data, _) in FAILING_IMAGES.items()),
        *(pair(key, JPEG, text) for key, (text, _) in READABLE_CAPTIONS.items()),
        *itertools.chain.from_iterable(LEFT_OUT.values()),
    ]
    # In the middle, so that what comes after it is known to be found.
    members = list(itertools.chain(*good[:6], *bad, *good[6:]))
    (folder / "00000.tar").write_bytes(tar_of(members))
    whole = tar_of([("a.jpg", JPEG), ("a.txt", b"good before the cut"), ("b.jpg", JPEG)])
    cut = whole.index(JPEG, whole.index(b"b.jpg")) + len(JPEG) // 2
    (folder / "00001.tar").write_bytes(whole[:cut])  # in mid-member
    for name, (data, _) in UNREADABLE_SHARDS.items():
        (folder / name).write_bytes(data)
    # The same samples with the captions in JSON, some of which is no object or no JSON.
    records = {
        "json_good": json.dumps({"caption": "good caption in JSON"}),
        "json_list": '["a list", "is no object"]',
        "json_text": '"a text is no object"',
        "json_broken": '{"caption": "cut o',
        "json_deep": "[" * 100_000,
        "json_number": '{"caption": 7}',
        "json_surrogate": '{"caption": "half a pair \\ud83d"}',
    }
    samples = [[(f"{k}.jpg", JPEG), (f"{k}.json", r.encode())] for k, r in records.items()]
    (folder / "json").mkdir()
    (folder / "json" / "00002.tar").write_bytes(tar_of(list(itertools.chain(*samples))))


def snapshot(folder: Path) -> dict[str, tuple]:
    """Every file and folder below: content, size, modification time and mode."""
    found = {}
    for path in sorted(folder.rglob("*")):
        status = path.lstat()
        content = hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else ""
        found[str(path.relative_to(folder))] = content, status.st_mtime_ns, status.st_mode
    return found


def read_all(source: IndexedSource, quarantine: Quarantine, order, *, num_batches: int) -> tuple:
    """Ids that were due and are in their rows, and the texts that a tokenizer saw."""
    seen: dict[str, None] = {}
    transform = ImageTransform(size=16, crop_scale=(0.3, 1.0), flip=True)
    load = LoadPair(source=source, tokenizer=Characters(seen), transform=transform)
    read = set()
    with open_batches(
        order=order, load=load, start=0, stop=num_batches, reading=Reading(threads=2)
    ) as batches:
        for batch in batches:
            rows = take_row_info(batch)
            quarantine.add(rows)
            read |= set(rows.ids[~rows.is_replaced & rows.valid].tolist())
            assert batch["image"].shape == (BATCH, 16, 16, 3)
    return read, seen


def test_every_bad_one_is_counted_and_nothing_else_is_lost(tmp_path):
    data, workdir, outside = tmp_path / "data", tmp_path / "workdir", tmp_path / "outside"
    for folder in (data, workdir, outside):
        folder.mkdir()
    (outside / "precious.txt").write_text("not to be touched")
    write_shards(data)
    before = snapshot(tmp_path)

    # --- Index: what can be known without decoding ------------------------------------------------
    shards = sorted(str(path) for path in data.glob("*.tar"))
    text = update_index(shards, TarFormat(), workdir / "txt", storage=Storage(), workers=1)
    num_kept = 12 + len(ODD_IMAGES) + len(FAILING_IMAGES) + len(READABLE_CAPTIONS) + 1
    expected = {name: len(groups) for name, groups in LEFT_OUT.items()}
    expected["without_image"] += 1  # the caption of the empty image
    expected["truncated"] = 1
    expected |= {"images": num_kept, "captions": num_kept}
    assert {name: n for name, n in text.index.counts.items() if n} == expected
    assert {Path(p).name for p in text.unreadable} == set(UNREADABLE_SHARDS)
    for path, why in text.unreadable.items():
        assert UNREADABLE_SHARDS[Path(path).name][1] in why

    in_json = TarFormat(caption_keys=("json:caption",))
    shards = [str(data / "json" / "00002.tar")]
    record = update_index(shards, in_json, workdir / "json", storage=Storage(), workers=1)
    expected = {"images": 2, "captions": 2, "unreadable_caption": 5}
    assert {name: n for name, n in record.index.counts.items() if n} == expected

    # --- Read: a pass, then training over three epochs ------------------------------------------
    source = IndexedSource(
        Index.open(workdir / "txt", storage=Storage()), TarFormat(), storage=Storage()
    )
    keys = {source.place(source.image_id(i)).key: i for i in range(len(source))}
    assert len(keys) == num_kept
    good = set(keys.values()) - {keys[key] for key in FAILING_IMAGES}
    members = Ranges(len(source))
    once = Pass(members=members, batch_size=BATCH, rows=np.arange(BATCH), seed=0)
    epochs = Stream(draw=Epochs(members), batch_size=BATCH, seed=0, rows=np.arange(BATCH))
    for order, num_batches in ((once, once.num_batches), (epochs, -(-3 * num_kept // BATCH))):
        path = workdir / f"quarantine-{type(order).__name__}.jsonl"
        quarantine = Quarantine(path, source=source, max_bad_fraction=0.5)
        read, texts = read_all(source, quarantine, order, num_batches=num_batches)
        assert read == good
        assert texts.keys() >= {caption for _, caption in READABLE_CAPTIONS.values()}
        assert sum(caption.startswith("odd: ") for caption in texts) == len(ODD_IMAGES)
        listed = list(read_quarantine(path))
        assert {entry["key"]: entry["kind"] for entry in listed} == {
            key: kind for key, (_, kind) in FAILING_IMAGES.items()
        }
        assert len(listed) == len(FAILING_IMAGES)
        assert {Path(entry["shard"]).name for entry in listed} == {"00000.tar"}
        kinds = Counter(kind for _, kind in FAILING_IMAGES.values())
        assert quarantine.counts.keys() == kinds.keys()
        assert all(quarantine.counts[kind] >= number for kind, number in kinds.items())

    index = Index.open(workdir / "json", storage=Storage())
    records = IndexedSource(index, in_json, storage=Storage())
    assert [records.caption(i) for i in range(2)] == ["good caption in JSON", "half a pair ?"]

    # --- Nothing outside of the workdir was touched ----------------------------------------------
    after = snapshot(tmp_path)
    touched = {name for name in before.keys() | after.keys() if before.get(name) != after.get(name)}
    assert touched and all(Path(name).parts[0] == "workdir" for name in touched)
    assert not Path("/tmp/nlip_jax_absolute.jpg").exists()
    assert not (tmp_path.parent / "above.jpg").exists()
