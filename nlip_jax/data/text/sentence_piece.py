"""Captions to rows of token ids and back: SentencePiece BPE, `[bos] pieces [eos] 0 0 ...`.

BPE, because its vocabulary is the same for any number of training threads (unigram's is not).
Text is folded to lower case and NFKC before it is split.
"""

import hashlib
import io
import logging
import os
import random
from collections.abc import Iterable

import numpy as np
import sentencepiece

from nlip_jax.data.text.tokenizer import PAD, RowTokenizer
from nlip_jax.data.text.vocabulary_files import find_file, read_bytes
from nlip_jax.errors import UsageError

UNK, BOS, EOS = 1, 2, 3
MASK = "<mask>"

# SentencePiece skips a training line above 4192 bytes without a word, so lines are cut before.
_MAX_TRAINING_CHARACTERS = 1_000
_SPACE = "\u2581"


def train_sentence_piece(
    captions: Iterable[str],
    *,
    vocab_size: int,
    max_sentences: int = 1_000_000,
    character_coverage: float = 0.9995,
    byte_fallback: bool = False,
) -> bytes:
    """Trains a vocabulary.

    Args:
      captions: text to learn from; passed over once.
      vocab_size: number of ids wanted; shrinks, with one logged line, to what the text supports.
      max_sentences: of more captions, a uniform sample of this size (always the same) is used.
      character_coverage: share of the text's characters that get ids; rarer ones are unknown.
      byte_fallback: spell unknown characters by their UTF-8 bytes, for 256 more ids.

    Returns:
      The model, for `SentencePieceTokenizer`. The same captions in the same order give the same
      bytes on every machine.

    Raises:
      UsageError: there is no text, or vocab_size has no room for its characters.
    """
    if max_sentences < 1:
        raise UsageError(f"max_sentences={max_sentences}: a tokenizer needs at least one caption")
    sample = _sample((caption[:_MAX_TRAINING_CHARACTERS] for caption in captions), max_sentences)
    if not any(caption.strip() for caption in sample):
        raise UsageError(
            f"no text to train a tokenizer on: {len(sample)} captions, all of them empty"
            if sample
            else "no text to train a tokenizer on: there are no captions"
        )
    model = io.BytesIO()
    try:
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=map(_to_utf8, sample),
            model_writer=model,
            model_type="bpe",
            vocab_size=vocab_size,
            hard_vocab_limit=False,
            character_coverage=character_coverage,
            byte_fallback=byte_fallback,
            normalization_rule_name="nmt_nfkc_cf",
            num_threads=1,
            pad_id=PAD,
            unk_id=UNK,
            bos_id=BOS,
            eos_id=EOS,
            control_symbols=[MASK],
            minloglevel=2,
        )
    except RuntimeError as error:  # its last words say how many ids the characters alone need
        raise UsageError(f"no tokenizer of vocab_size={vocab_size}: {_reason(error)}") from error
    found = SentencePieceTokenizer(model.getvalue(), context_length=2).vocab_size
    if found < vocab_size:
        logging.getLogger(__name__).warning(
            "vocab_size shrank from %d to %d: %d captions support no more",
            vocab_size,
            found,
            len(sample),
        )
    return model.getvalue()


class SentencePieceTokenizer(RowTokenizer):
    """A tokenizer of SentencePiece's models; attributes as of `Tokenizer`.

    Words are what white space separates, so text of a script without it is one word.

    Args:
      model: of `train_sentence_piece`: its bytes, a file of them, or a folder with one.
      context_length: ids in a row; at least 2, for [bos] and [eos].

    Raises:
      UsageError: no such file, no SentencePiece model, or other special ids than ours.
    """

    def __init__(self, model: str | os.PathLike | bytes, *, context_length: int) -> None:
        name = "this tokenizer" if isinstance(model, bytes) else os.fspath(model)
        model = model if isinstance(model, bytes) else _read(model)
        self._processor = _load(model, name)
        size = self._processor.vocab_size()
        special = {"pad": PAD, "unk": UNK, "bos": BOS, "eos": EOS}
        mask = self._processor.piece_to_id(MASK)
        super().__init__(
            model,
            context_length=context_length,
            vocab_size=size,
            special_ids=special | {"mask": mask} if self._processor.is_control(mask) else special,
            fingerprint=hashlib.sha256(model).hexdigest(),
        )
        pieces = map(self._processor.id_to_piece, range(size))
        self._starts_word = np.array([piece.startswith(_SPACE) for piece in pieces])

    def _split(self, text: str) -> list[int]:
        return self._processor.encode(_to_utf8(text))

    def _join(self, ids: list[int]) -> str:
        return self._processor.decode(ids)

    def _starts(self, row: np.ndarray) -> np.ndarray:
        return self._starts_word[row]


def _sample(captions: Iterable[str], size: int) -> list[str]:
    """Reservoir sampling with a fixed seed: uniform, one pass, at most `size` in memory."""
    generator = random.Random(0)
    kept: list[str] = []
    for i, caption in enumerate(captions):
        if i < size:
            kept.append(caption)
        elif (slot := generator.randrange(i + 1)) < size:
            kept[slot] = caption
    return kept


def _to_utf8(text: str) -> bytes:
    """UTF-8; lone surrogates, which web text has and UTF-8 has not, become question marks."""
    return text.encode("utf-8", "replace")


def _read(place: str | os.PathLike) -> bytes:
    path, _ = find_file(
        place,
        ("*.model",),
        what="a SentencePiece model, as `python -m nlip_jax tokenizer` trains it",
    )
    return read_bytes(path)


def _load(model: bytes, name: str) -> sentencepiece.SentencePieceProcessor:
    processor = sentencepiece.SentencePieceProcessor(num_threads=1)  # workers are many already
    try:
        processor.LoadFromSerializedProto(model)
        ids = (processor.pad_id(), processor.unk_id(), processor.bos_id(), processor.eos_id())
    except RuntimeError as error:
        raise UsageError(f"{name} is no SentencePiece model: {_reason(error)}") from error
    if ids != (PAD, UNK, BOS, EOS):
        raise UsageError(
            f"{name} has pad, unk, bos, eos = {ids} and must have {(PAD, UNK, BOS, EOS)}; "
            "train it with `python -m nlip_jax tokenizer`"
        )
    return processor


def _reason(error: RuntimeError) -> str:
    """SentencePiece's message without the place in its source."""
    return str(error).rsplit("] ", maxsplit=1)[-1].strip() or "empty or damaged"
