"""What byte-pair vocabularies of GPT-2's kind share: bytes as characters, pieces, merges, files."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nlip_jax.data.text.vocabulary_files import (
    as_list,
    read_object,
    read_text,
    read_tokenizer_json,
)
from nlip_jax.errors import UsageError


@dataclass(frozen=True)
class Vocabulary:
    """What a byte-pair vocabulary consists of.

    Attributes:
      pieces: by the id they were published with.
      merges: pairs of pieces that become one, the most frequent first.
      name: of its file, for messages.
    """

    pieces: tuple[str, ...]
    merges: tuple[tuple[str, str], ...]
    name: str


def byte_characters() -> dict[int, str]:
    """Byte -> the character that stands for it, in CLIP's order: itself where it is visible."""
    visible = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [byte for byte in range(256) if byte not in visible]
    return {b: chr(b) for b in visible} | {b: chr(256 + i) for i, b in enumerate(others)}


def read_two_files(path: Path) -> Vocabulary:
    """Two files side by side: vocab.json and merges.txt.

    Args:
      path: of one of them.

    Raises:
      UsageError: one of them is not there, or damaged.
    """
    vocabulary, merges = path.with_name("vocab.json"), path.with_name("merges.txt")
    pieces = as_list(read_object(vocabulary), vocabulary)
    lines = [line for line in read_text(merges).split("\n") if not line.startswith("#version")]
    return Vocabulary(pieces, as_pairs(lines, merges), str(vocabulary))


def read_bpe_json(path: Path) -> Vocabulary:
    """tokenizer.json of Hugging Face's tokenizers; pieces that it adds to its model count too.

    Args:
      path: of the file.

    Raises:
      UsageError: it is damaged, or of another kind.
    """
    content = read_tokenizer_json(path, "BPE")
    model, added = content["model"], content.get("added_tokens") or []
    pieces = model.get("vocab")
    if isinstance(pieces, dict) and all(isinstance(token, dict) for token in added):
        pieces = pieces | {token.get("content"): token.get("id") for token in added}
    return Vocabulary(as_list(pieces, path), as_pairs(model.get("merges", []), path), str(path))


def as_pairs(merges: list[Any], path: Path) -> tuple[tuple[str, str], ...]:
    """Merges, each written "a b" or ["a", "b"].

    Args:
      merges: of a file; empty ones are left out.
      path: of it, for the message.

    Raises:
      UsageError: one is not of two pieces.
    """
    pairs = [tuple(m.split(" ")) if isinstance(m, str) else tuple(m) for m in merges if m]
    if any(len(pair) != 2 for pair in pairs):
        raise UsageError(f"a merge in {path} is not of two pieces")
    return tuple(pairs)
