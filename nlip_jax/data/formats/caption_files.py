"""Files that give the captions of a folder of images, in the layouts people have."""

import posixpath
import re
from collections.abc import Iterator, Sequence
from typing import Any

from nlip_jax.data.formats.json_text import load_json

# Names that records have for the image file and for its captions.
_FILE = ("filename", "file_name", "file", "image")
_CAPTIONS = ("captions", "caption", "sentences")
_KEY = "image/key"  # Crossmodal-3600's name for KEY.jpg

_TOKEN = re.compile(r"(?P<file>.+?)(#\d+)?\t(?P<caption>.*)", re.DOTALL)

_Pair = tuple[str, Any]  # an image file, empty if unknown, and one caption or several or none


def parse_caption_file(
    data: bytes, *, splits: Sequence[str] = (), language: str = ""
) -> dict[str, list[Any]]:
    """Reads a captions file.

    These are known:

    - COCO: `{"images": [{"id", "file_name"}], "annotations": [{"image_id", "caption"}]}`
    - records, alone in a list or under "images": the file is called filename, file_name, file or
      image, what it has captions or caption; with several records of one file all count
    - Karpathy's splits: such records with "filepath" and "sentences": `[{"raw"}]`
    - JSON lines: such a record on each line
    - Crossmodal-3600: JSON lines with "image/key", which names KEY.jpg, and the captions of every
      language under its name: `{"en": {"caption": [...]}}`
    - a mapping: `{"FILE": caption or captions}`
    - text as Flickr8k.token: lines of `FILE#NUMBER<tab>caption`, with or without the number

    Args:
      data: the whole file.
      splits: takes only records whose "split" is one of these; empty takes all.
      language: takes what records have under this name; empty takes their captions.

    Returns:
      By file, in the order of first mention, what stands there as captions; under "" captions
      without a file.

    Raises:
      ValueError: none of these.
    """
    text = data.decode("utf-8-sig")
    is_json = text.lstrip()[:1] in ("{", "[")
    found = {}
    if language and not is_json:
        raise ValueError(f"language={language!r}: only JSON records have several")
    for file, captions in _json_pairs(text, splits, language) if is_json else _token_pairs(text):
        several = captions if isinstance(captions, list) else [captions]
        name = file.encode("utf-8", "replace").decode()  # JSON can spell half a surrogate pair
        found.setdefault(name, []).extend(one for one in several if one is not None)
    return found


def _token_pairs(text: str) -> Iterator[_Pair]:
    # Not by splitlines(), which splits at more than line ends.
    for line in filter(None, (line.strip("\r") for line in text.split("\n"))):
        match = _TOKEN.fullmatch(line)
        if not match:
            raise ValueError(
                f"neither JSON nor FILE<tab>caption in the line {line[:60]!r}; a table whose first "
                "line names its columns is read by data.source=table"
            )
        yield match["file"].strip(), match["caption"]


def _json_pairs(text: str, splits: Sequence[str], language: str) -> Iterator[_Pair]:
    document = load_json(text)
    if isinstance(document, dict) and _KEY in document:  # JSON lines, and only one
        document = [document]
    if isinstance(document, list):
        return _record_pairs(document, splits, language)
    images = document.get("images")
    is_coco = isinstance(images, list) and "annotations" in document
    if language and (is_coco or not isinstance(images, list)):
        raise ValueError(f"language={language!r}: only records have several, as in JSON lines")
    if is_coco:
        return _coco_pairs(images, document["annotations"])
    if isinstance(images, list):
        return _record_pairs(images, splits, language)
    return iter(document.items())


def _record_pairs(records: list[Any], splits: Sequence[str], language: str) -> Iterator[_Pair]:
    for number, record in enumerate(records):
        if not isinstance(record, dict) or not (number or _first(record, (*_FILE, _KEY))):
            what = ", ".join(record) if isinstance(record, dict) else type(record).__name__
            raise ValueError(f"record {number} has no {' or '.join(_FILE)}: {what}")
        if splits and record.get("split") not in splits:
            continue
        captions = record.get(language) if language else _first(record, _CAPTIONS)
        if language and isinstance(captions, dict):
            captions = _first(captions, _CAPTIONS)
        if isinstance(captions, list):
            captions = [c.get("raw") if isinstance(c, dict) else c for c in captions]
        yield _file_of(record), captions


def _coco_pairs(images: list[Any], annotations: list[Any]) -> Iterator[_Pair]:
    try:
        files = {image["id"]: _file(image["file_name"]) for image in images}
        pairs = [(files.get(one["image_id"], ""), one["caption"]) for one in annotations]
    except (TypeError, KeyError) as error:
        raise ValueError(
            "in the layout of COCO images need id and file_name, annotations image_id and caption; "
            f"one has no {error}"
        ) from error
    yield from ((file, []) for file in files.values())
    yield from pairs


def _first(record: dict[str, Any], names: Sequence[str]) -> Any:
    return next((record[name] for name in names if record.get(name) is not None), None)


def _file_of(record: dict[str, Any]) -> str:
    name = _first(record, _FILE)
    if name is None and isinstance(record.get(_KEY), str):
        return f"{record[_KEY]}.jpg"
    return _file(name, record.get("filepath"))


def _file(name: Any, folder: Any = None) -> str:
    if not isinstance(name, str):
        return ""
    return posixpath.join(folder, name) if isinstance(folder, str) else name
