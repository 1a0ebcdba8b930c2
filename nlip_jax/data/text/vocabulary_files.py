"""Files that hold published vocabularies, and one-line errors where they do not."""

import fnmatch
import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from nlip_jax.errors import UsageError


def find_file(place: str | os.PathLike, names: Iterable[str], *, what: str) -> tuple[Path, str]:
    """The file of a vocabulary: the one given, or the first that a folder has.

    Args:
      place: file or folder.
      names: that it may have, as patterns, the preferred one first.
      what: what such files are and where to get them, for the message.

    Returns:
      The file and the pattern that it matches.

    Raises:
      UsageError: there is none, or several match one pattern.
    """
    names = tuple(names)
    choices = f"{' or '.join(names)}: {what}"
    if not place:
        raise UsageError(f"config.tokenizer.model is empty; it must be {choices}")
    place = Path(place).expanduser()
    files = sorted(place.iterdir()) if place.is_dir() else [place] if place.is_file() else []
    for name in names:
        found = [file for file in files if fnmatch.fnmatchcase(file.name, name)]
        if len(found) > 1:
            raise UsageError(f"{place} has {found[0].name} and {found[1].name}: name one of them")
        if found:
            return found[0], name
    problem = "has no" if place.is_dir() else "is no" if files else "does not exist; it must be"
    raise UsageError(f"{place} {problem} {choices}")


def read_bytes(path: Path) -> bytes:
    """The content of a file.

    Raises:
      UsageError: it cannot be read.
    """
    try:
        return path.read_bytes()
    except OSError as error:
        raise UsageError(f"cannot read the vocabulary {path}: {error.strerror}") from error


def read_text(path: Path) -> str:
    """The content of a UTF-8 file.

    Raises:
      UsageError: it cannot be read or is no text.
    """
    try:
        return read_bytes(path).decode()
    except UnicodeDecodeError as error:
        raise UsageError(f"the vocabulary {path} is not UTF-8: {error}") from error


def read_object(path: Path) -> dict[str, Any]:
    """The content of a JSON file that holds an object.

    Raises:
      UsageError: it cannot be read or holds something else.
    """
    try:
        content = json.loads(read_text(path))
    except ValueError as error:
        raise UsageError(f"the vocabulary {path} is no JSON: {error}") from error
    if not isinstance(content, dict):
        raise UsageError(f"the vocabulary {path} holds no JSON object")
    return content


def read_tokenizer_json(path: Path, kind: str) -> dict[str, Any]:
    """The content of a `tokenizer.json` of Hugging Face's tokenizers.

    Args:
      path: the file.
      kind: the type that its model must have.

    Raises:
      UsageError: it is another type, or no such file at all.
    """
    content = read_object(path)
    model = content.get("model")
    found = model.get("type") if isinstance(model, dict) else None
    if found != kind:
        raise UsageError(f"{path} holds a model of type {found!r} and must hold one of {kind!r}")
    return content


def as_list(vocabulary: Any, path: Path) -> tuple[str, ...]:
    """The pieces of a vocabulary by id.

    Args:
      vocabulary: of piece -> id.
      path: for the message.

    Raises:
      UsageError: the ids are not 0, 1, 2...
    """
    if not isinstance(vocabulary, dict) or set(vocabulary.values()) != set(range(len(vocabulary))):
        raise UsageError(f"the ids of the vocabulary {path} are not 0 to its length - 1")
    return tuple(sorted(vocabulary, key=vocabulary.__getitem__))
