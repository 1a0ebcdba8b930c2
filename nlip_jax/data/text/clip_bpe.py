"""OpenAI CLIP's byte-pair encoding, from the files it was published in.

Text is cleaned as CLIP does it (ftfy, HTML entities, white space, lower case), split by its
pattern, spelled in bytes, and merged. CLIP's ids begin with "!" = 0 and it pads with 0 as well;
here 0 is padding and nothing else, so every id is CLIP's + 1 (`id_offset`). Text never makes
special ids: "<|endoftext|>" in a caption is a row of ordinary pieces, where CLIP's own tokenizer
would end the caption.
Radford et al. 2021, Learning transferable visual models from natural language supervision.
"""

import gzip
import hashlib
import html
import json
import os
from pathlib import Path

import ftfy
import numpy as np
from tokenizers import Regex, models, pre_tokenizers
from tokenizers import Tokenizer as Pipeline

from nlip_jax.data.text.byte_pairs import (
    Vocabulary,
    as_pairs,
    byte_characters,
    read_bpe_json,
    read_two_files,
)
from nlip_jax.data.text.tokenizer import RowTokenizer
from nlip_jax.data.text.vocabulary_files import find_file, read_bytes
from nlip_jax.errors import UsageError

CONTEXT_LENGTH = 77  # of the published models

_END_OF_WORD = "</w>"
_BOS = ("<|startoftext|>", "<start_of_text>")  # OpenAI's and open_clip's name
_EOS = ("<|endoftext|>", "<end_of_text>")
_PATTERN = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|\p{L}+|\p{N}|[^\s\p{L}\p{N}]+"
_MAX_MERGES = 49_152 - 256 - 2  # of a vocabulary of 49,152 pieces; the file has more, unused
_WHAT = (
    "bpe_simple_vocab_16e6.txt.gz is part of the package open_clip_torch, the others are parts of "
    "CLIP's checkpoints on Hugging Face"
)


def _read_merge_list(path: Path) -> Vocabulary:
    """OpenAI's file: merges alone, from which the pieces follow."""
    try:
        lines = gzip.decompress(read_bytes(path)).decode().split("\n")[1 : _MAX_MERGES + 1]
    except (OSError, EOFError, UnicodeDecodeError) as error:
        raise UsageError(f"{path} is no gzip of UTF-8 text: {error}") from error
    merges = as_pairs(lines, path)
    alphabet = tuple(byte_characters().values())
    pieces = alphabet + tuple(letter + _END_OF_WORD for letter in alphabet)
    pieces += (*map("".join, merges), _BOS[0], _EOS[0])
    return Vocabulary(pieces, merges, str(path))


# File -> function that reads it. In a folder that holds several the first one is read.
_READERS = {
    "*.txt.gz": _read_merge_list,
    "tokenizer.json": read_bpe_json,
    "vocab.json": read_two_files,
    "merges.txt": read_two_files,
}


def read_vocabulary(place: str | os.PathLike) -> Vocabulary:
    """Reads `bpe_simple_vocab_16e6.txt.gz`, `tokenizer.json` or `vocab.json` with `merges.txt`.

    Args:
      place: one of these files, or a folder that holds one.

    Raises:
      UsageError: there is none, or it is damaged.
    """
    file, name = find_file(place, _READERS, what=_WHAT)
    return _READERS[name](file)


class ClipTokenizer(RowTokenizer):
    """CLIP's tokenizer; attributes as of `Tokenizer`.

    Args:
      vocabulary: as of `read_vocabulary`.
      context_length: ids in a row.

    Raises:
      UsageError: the vocabulary is not of CLIP's kind.
    """

    id_offset = 1

    def __init__(self, vocabulary: Vocabulary, *, context_length: int = CONTEXT_LENGTH) -> None:
        ids = {piece: i + self.id_offset for i, piece in enumerate(vocabulary.pieces)}
        characters = byte_characters()
        for piece in [c + end for c in characters.values() for end in ("", _END_OF_WORD)]:
            _find((piece,), ids, vocabulary.name)
        super().__init__(
            vocabulary,
            context_length=context_length,
            vocab_size=len(vocabulary.pieces) + self.id_offset,
            special_ids={
                "pad": 0,
                "bos": _find(_BOS, ids, vocabulary.name),
                "eos": _find(_EOS, ids, vocabulary.name),
            },
            fingerprint=hashlib.sha256(
                json.dumps(["clip", vocabulary.pieces, vocabulary.merges]).encode()
            ).hexdigest(),
        )
        self._pieces = vocabulary.pieces
        self._bytes = {character: byte for byte, character in characters.items()}
        self._ends_word = np.array([True, *(p.endswith(_END_OF_WORD) for p in vocabulary.pieces)])
        self._pipeline = _pipeline(ids, vocabulary)

    def _split(self, text: str) -> list[int]:
        return self._pipeline.encode(_clean(text), add_special_tokens=False).ids

    def _join(self, ids: list[int]) -> str:
        text = "".join(self._pieces[i - self.id_offset] for i in ids)
        words = text.removesuffix(_END_OF_WORD).split(_END_OF_WORD)
        return b" ".join(bytes(map(self._bytes.get, word)) for word in words).decode(
            errors="replace"
        )

    def _starts(self, row: np.ndarray) -> np.ndarray:
        return np.concatenate([[True], self._ends_word[row[:-1]]])


def _find(names: tuple[str, ...], ids: dict[str, int], file: str) -> int:
    found = [ids[name] for name in names if name in ids]
    if not found:
        raise UsageError(f"{file} is no vocabulary of CLIP: it lacks {' and '.join(names)}")
    return found[0]


def _pipeline(ids: dict[str, int], vocabulary: Vocabulary) -> Pipeline:
    try:
        model = models.BPE(
            ids,
            list(vocabulary.merges),
            continuing_subword_prefix="",
            end_of_word_suffix=_END_OF_WORD,
        )
    except Exception as error:  # the library raises nothing narrower
        raise UsageError(f"{vocabulary.name} is no vocabulary of CLIP: {error}") from error
    pipeline = Pipeline(model)
    pipeline.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(_PATTERN), "removed", invert=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    return pipeline


def _clean(text: str) -> str:
    # Printable ASCII, most captions by far, has nothing that ftfy would fix.
    if not (text.isascii() and text.isprintable() and "&" not in text):
        text = html.unescape(html.unescape(ftfy.fix_text(text)))
    return " ".join(text.split()).lower()
