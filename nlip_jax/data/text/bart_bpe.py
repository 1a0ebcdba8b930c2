"""BART's byte-pair encoding, which is GPT-2's, from the files it was published in.

Text is taken as it is: split by GPT-2's pattern, each word together with the blank before it,
spelled in bytes, and merged. BART pads with its piece 1; here 0 is padding and nothing else, so
every id is BART's + 1 (`id_offset`), and its own piece for padding is never used. Text never makes
special ids: "</s>" in a caption is a row of ordinary pieces, where the published tokenizers would
end the caption.
Radford et al. 2019, Language models are unsupervised multitask learners; Lewis et al. 2020, BART.
"""

import hashlib
import json
import os

import numpy as np
from tokenizers import Tokenizer as Pipeline
from tokenizers import models, pre_tokenizers

from nlip_jax.data.text.byte_pairs import (
    Vocabulary,
    byte_characters,
    read_bpe_json,
    read_two_files,
)
from nlip_jax.data.text.tokenizer import PAD, RowTokenizer
from nlip_jax.data.text.vocabulary_files import find_file
from nlip_jax.errors import UsageError

_SPECIAL = {"bos": "<s>", "eos": "</s>", "unk": "<unk>", "mask": "<mask>", "unused": "<pad>"}
_WHAT = "BART's checkpoints on Hugging Face hold them"

# File -> function that reads it. In a folder that holds several the first one is read.
_READERS = {
    "tokenizer.json": read_bpe_json,
    "vocab.json": read_two_files,
    "merges.txt": read_two_files,
}


def read_vocabulary(place: str | os.PathLike) -> Vocabulary:
    """Reads `tokenizer.json` or `vocab.json` with `merges.txt`.

    Args:
      place: one of these files, or a folder that holds one.

    Raises:
      UsageError: there is none, or it is damaged.
    """
    file, name = find_file(place, _READERS, what=_WHAT)
    return _READERS[name](file)


class BartTokenizer(RowTokenizer):
    """BART's tokenizer; attributes as of `Tokenizer`. <s> is its [bos], </s> its [eos].

    Args:
      vocabulary: as of `read_vocabulary`.
      context_length: ids in a row.

    Raises:
      UsageError: the vocabulary is not of BART's kind.
    """

    id_offset = 1

    def __init__(self, vocabulary: Vocabulary, *, context_length: int) -> None:
        pieces, characters = vocabulary.pieces, byte_characters()
        ids = {piece: i + self.id_offset for i, piece in enumerate(pieces)}
        missing = [
            piece for piece in (*_SPECIAL.values(), *characters.values()) if piece not in ids
        ]
        if missing:
            raise UsageError(
                f"{vocabulary.name} is no vocabulary of BART: it lacks {', '.join(missing[:5])}"
            )
        super().__init__(
            vocabulary,
            context_length=context_length,
            vocab_size=len(pieces) + self.id_offset,
            special_ids={"pad": PAD, **{key: ids[piece] for key, piece in _SPECIAL.items()}},
            fingerprint=hashlib.sha256(
                json.dumps(["bart", pieces, vocabulary.merges]).encode()
            ).hexdigest(),
        )
        bytes_of = {character: byte for byte, character in characters.items()}
        self._spelled = [b"", *(_bytes(piece, bytes_of) for piece in pieces)]
        self._starts_word = np.array([piece[:1].isspace() for piece in self._spelled])
        self._pipeline = _pipeline(ids, vocabulary)

    def _split(self, text: str) -> list[int]:
        text = text.encode("utf-8", "replace").decode()  # no half of a surrogate pair
        return self._pipeline.encode(text, add_special_tokens=False).ids

    def _join(self, ids: list[int]) -> str:
        return b"".join(self._spelled[i] for i in ids).decode(errors="replace")

    def _starts(self, row: np.ndarray) -> np.ndarray:
        return self._starts_word[row]


def _bytes(piece: str, bytes_of: dict[str, int]) -> bytes:
    """What a piece stands for; one that is not spelled in bytes, for itself."""
    found = [bytes_of.get(character) for character in piece]
    return piece.encode() if None in found else bytes(found)


def _pipeline(ids: dict[str, int], vocabulary: Vocabulary) -> Pipeline:
    try:
        model = models.BPE(ids, list(vocabulary.merges))
    except Exception as error:  # the library raises nothing narrower
        raise UsageError(f"{vocabulary.name} is no vocabulary of BART: {error}") from error
    pipeline = Pipeline(model)
    pipeline.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    return pipeline
