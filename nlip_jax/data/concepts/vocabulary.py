"""The concepts of a run by number, and their tokens."""

import hashlib
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from nlip_jax.data.text.tokenizer import PAD, Tokenizer
from nlip_jax.errors import UsageError
from nlip_jax.files import write_atomically

NONE = -1  # in place of the number of a concept: there is none

_LONGEST = 100  # characters of a concept


@dataclass(frozen=True, eq=False)
class ConceptVocabulary:
    """Concepts and their tokens; made by `make_vocabulary`.

    Attributes:
      words: `q` words or phrases, by number.
      rows: `[q, t]` int32, the pieces of each without [bos] and [eos], filled up with padding.
      fingerprint: hexadecimal; another value for other words or tokens.
    """

    words: tuple[str, ...]
    rows: np.ndarray
    fingerprint: str

    def __len__(self) -> int:
        return len(self.words)

    def tokens(self, ids: np.ndarray) -> np.ndarray:
        """The tokens of the concepts of a batch, slot after slot.

        Args:
          ids: `[b, k]` integers; below 0 for none.

        Returns:
          `[b, k * t]` int32, padding where there is no concept.
        """
        ids = np.asarray(ids)
        found = np.where(ids[..., None] < 0, PAD, self.rows[np.maximum(ids, 0)])
        return found.reshape(len(ids), ids.shape[1] * self.rows.shape[1])

    def names(self, ids: Sequence[int]) -> list[str]:
        """The words of some concepts; those below 0 are left out."""
        return [self.words[i] for i in ids if i >= 0]


def make_vocabulary(
    words: Sequence[str], *, tokenizer: Tokenizer, max_tokens: int
) -> ConceptVocabulary:
    """Numbers concepts and encodes them.

    Args:
      words: the concepts, at least one.
      tokenizer: of the texts that they stand beside.
      max_tokens: of each concept, `t`; longer ones are cut.
    """
    rows = np.full((len(words), max_tokens), PAD, np.int32)
    for row, word in zip(rows, words, strict=True):
        pieces = tokenizer.pieces(word)[:max_tokens]
        row[: len(pieces)] = pieces
    digest = hashlib.sha256("\n".join(words).encode())
    digest.update(np.array(rows.shape, np.int64).tobytes() + rows.tobytes())
    return ConceptVocabulary(tuple(words), rows, digest.hexdigest())


def write_concepts(path: str | os.PathLike, words: Iterable[str]) -> None:
    """Writes concepts as `read_concepts` reads them; the file is there whole or not at all."""
    write_atomically(path, concepts_text(words).encode())


def concepts_text(words: Iterable[str]) -> str:
    """One concept a line."""
    return "".join(f"{word}\n" for word in words)


def read_concepts(path: str | os.PathLike) -> tuple[str, ...]:
    """Reads a file of concepts: UTF-8 text, one word or phrase a line.

    Case and runs of spaces count for nothing; blank lines are skipped, and what stands there twice
    is one concept, at its first place.

    Args:
      path: the file.

    Raises:
      UsageError: naming the line that is no concept, or what is wrong with the file.
    """
    path = Path(path).expanduser()
    try:
        content = path.read_bytes()
    except OSError as error:
        raise UsageError(
            f"cannot read the concepts {path}: {error.strerror}; config.concepts.vocabulary must "
            "name a text file with one a line, or be empty to mine them from the captions"
        ) from error
    found = dict.fromkeys(
        word
        for number, line in enumerate(content.removeprefix(b"\xef\xbb\xbf").split(b"\n"), 1)
        if (word := _concept(line, f"{path}:{number}"))
    )
    if not found:
        raise UsageError(f"{path} holds no concept: it must have one word or phrase a line")
    return tuple(found)


def _concept(line: bytes, place: str) -> str:
    """The concept of a line; empty for a blank one."""
    try:
        text = line.decode().rstrip("\r")
    except UnicodeDecodeError as error:
        raise UsageError(f"{place}: not UTF-8 ({error.reason}); save the file as UTF-8") from error
    word = " ".join(text.lower().split())
    wrong = next((mark for mark in ',;"\t' if mark in text.strip()), None)
    if wrong is not None:
        raise UsageError(
            f"{place}: {text!r} holds {wrong!r}: give one word or phrase a line and nothing else"
        )
    if len(word) > _LONGEST or not word.isprintable():
        raise UsageError(
            f"{place}: {text[:_LONGEST]!r} is no word or phrase: at most {_LONGEST} printable "
            "characters a line"
        )
    return word
