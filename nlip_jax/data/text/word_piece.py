"""BERT's WordPiece, from the files its vocabularies are published in.

Text is cleaned, split at white space, punctuation and Chinese characters, and each word is cut into
the longest pieces that the vocabulary has. Words above 100 characters are unknown, as in Hugging
Face's library (200 in BERT's first code), and so is a word with a character that no piece covers.
Devlin et al. 2019, BERT: pre-training of deep bidirectional transformers.
"""

import hashlib
import json
import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from tokenizers import Tokenizer as Pipeline
from tokenizers import models, normalizers, pre_tokenizers

from nlip_jax.data.text.tokenizer import PAD, RowTokenizer
from nlip_jax.data.text.vocabulary_files import (
    as_list,
    find_file,
    read_text,
    read_tokenizer_json,
)
from nlip_jax.errors import UsageError

_CONTINUES = "##"
_UNKNOWN = "[UNK]"
_SPECIAL = {"pad": "[PAD]", "bos": "[CLS]", "eos": "[SEP]", "unk": _UNKNOWN, "mask": "[MASK]"}
_WHAT = "BERT's checkpoints, Google's and those on Hugging Face, hold them"


@dataclass(frozen=True)
class Vocabulary:
    """What a BERT vocabulary consists of.

    Attributes:
      pieces: by id.
      lower_case: whether its text is folded to lower case and stripped of accents.
      name: of its file, for messages.
    """

    pieces: tuple[str, ...]
    lower_case: bool
    name: str


def _read_lines(path: Path, lower_case: bool) -> Vocabulary:
    """vocab.txt: a piece a line."""
    lines = read_text(path).removesuffix("\n").split("\n")
    pieces = tuple(line.removesuffix("\r") for line in lines)
    if len(set(pieces)) != len(pieces):
        raise UsageError(f"a piece stands twice in {path}, so its ids are not clear")
    return Vocabulary(pieces, lower_case, str(path))


def _read_tokenizer_json(path: Path, lower_case: bool) -> Vocabulary:
    content = read_tokenizer_json(path, "WordPiece")
    cleaning = content.get("normalizer") or {}
    for field, ours in _cleaning(lower_case).items():
        theirs = cleaning.get(field)
        if theirs not in (None, ours):
            raise UsageError(
                f"{path} has {field}={theirs}, which config.tokenizer.lower_case={lower_case} "
                "contradicts: change that, or take a vocabulary with BERT's own cleaning"
            )
    return Vocabulary(as_list(content["model"].get("vocab"), path), lower_case, str(path))


def _cleaning(lower_case: bool) -> dict[str, bool]:
    """Settings of BERT's normalizer, by the names of the library and of tokenizer.json."""
    return {
        "clean_text": True,
        "handle_chinese_chars": True,
        "strip_accents": lower_case,
        "lowercase": lower_case,
    }


# File -> function that reads it. In a folder that holds several the first one is read.
_READERS = {"*vocab.txt": _read_lines, "tokenizer.json": _read_tokenizer_json}


def read_vocabulary(place: str | os.PathLike, *, lower_case: bool) -> Vocabulary:
    """Reads `vocab.txt` or `tokenizer.json`.

    Args:
      place: one of these files, or a folder that holds one.
      lower_case: True for uncased vocabularies, False for cased ones.

    Raises:
      UsageError: there is none, it is damaged, or it is cased and `lower_case` says otherwise.
    """
    file, name = find_file(place, _READERS, what=_WHAT)
    return _READERS[name](file, lower_case)


class BertTokenizer(RowTokenizer):
    """BERT's tokenizer; attributes as of `Tokenizer`. [CLS] is its [bos], [SEP] its [eos].

    Args:
      vocabulary: as of `read_vocabulary`.
      context_length: ids in a row.

    Raises:
      UsageError: the vocabulary is not of BERT's kind, or [PAD] is not its first piece.
    """

    def __init__(self, vocabulary: Vocabulary, *, context_length: int) -> None:
        pieces, name = vocabulary.pieces, vocabulary.name
        ids = {piece: i for i, piece in enumerate(pieces)}
        missing = [piece for piece in _SPECIAL.values() if piece not in ids]
        if missing:
            raise UsageError(f"{name} is no vocabulary of BERT: it lacks {', '.join(missing)}")
        if ids[_SPECIAL["pad"]] != PAD:
            raise UsageError(f"{name} has [PAD] = {ids[_SPECIAL['pad']]} and must have it first")
        capitals = [p for p in pieces if not p.startswith("[") and p.isascii() and p != p.lower()]
        if vocabulary.lower_case and capitals:
            raise UsageError(
                f"{name} is cased, it has {capitals[0]!r}: set config.tokenizer.lower_case=False"
            )
        super().__init__(
            vocabulary,
            context_length=context_length,
            vocab_size=len(pieces),
            special_ids={key: ids[piece] for key, piece in _SPECIAL.items()},
            fingerprint=hashlib.sha256(
                json.dumps(["bert", vocabulary.lower_case, pieces]).encode()
            ).hexdigest(),
        )
        self._pieces = pieces
        self._starts_word = np.array([not piece.startswith(_CONTINUES) for piece in pieces])
        model = models.WordPiece(
            ids,
            unk_token=_UNKNOWN,
            max_input_chars_per_word=100,
            continuing_subword_prefix=_CONTINUES,
        )
        self._pipeline = Pipeline(model)
        self._pipeline.normalizer = normalizers.BertNormalizer(**_cleaning(vocabulary.lower_case))
        self._pipeline.pre_tokenizer = pre_tokenizers.BertPreTokenizer()

    def _split(self, text: str) -> list[int]:
        text = text.encode("utf-8", "replace").decode()  # no half of a surrogate pair
        return self._pipeline.encode(text, add_special_tokens=False).ids

    def _join(self, ids: list[int]) -> str:
        return " ".join(self._pieces[i] for i in ids).replace(f" {_CONTINUES}", "")

    def _starts(self, row: np.ndarray) -> np.ndarray:
        return self._starts_word[row]
