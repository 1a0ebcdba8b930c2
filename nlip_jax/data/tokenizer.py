"""Captions to rows of token ids and back: SentencePiece BPE, `[bos] pieces [eos] 0 0 ...`.

BPE, because its vocabulary is the same for any number of training threads (unigram's is not).
Text is folded to lower case and NFKC before it is split.
"""

import dataclasses
import hashlib
import io
import logging
import os
import random
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import sentencepiece

from nlip_jax.errors import UsageError
from nlip_jax.files import write_atomically

PAD, UNK, BOS, EOS = 0, 1, 2, 3

# Longer captions are cut before they are looked at: SentencePiece skips a training line above
# 4192 bytes without a word, and a row of tokens never needs this much text.
_MAX_TRAINING_CHARACTERS = 1_000
_MAX_CHARACTERS_PER_TOKEN = 64


@dataclasses.dataclass(frozen=True)
class TokenizerInfo:
    """What `train_tokenizer` made.

    Attributes:
      vocab_size: ids of the vocabulary, special ones included.
      requested: the size that was asked for; above `vocab_size` where the text supports fewer.
      num_captions: captions it was trained on.
      fingerprint: as of `Tokenizer`.
    """

    vocab_size: int
    requested: int
    num_captions: int
    fingerprint: str


def train_tokenizer(
    captions: Iterable[str],
    *,
    path: str | os.PathLike,
    vocab_size: int,
    max_sentences: int = 1_000_000,
    character_coverage: float = 0.9995,
    byte_fallback: bool = False,
) -> TokenizerInfo:
    """Trains a vocabulary and writes it to one file, whole or not at all.

    The same captions in the same order give the same bytes on every machine.

    Args:
      captions: text to learn from; passed over once.
      path: the file to write.
      vocab_size: number of ids wanted; shrinks, with one logged line, to what the text supports.
      max_sentences: of more captions, a uniform sample of this size (always the same) is used.
      character_coverage: share of the text's characters that get ids; rarer ones are unknown.
      byte_fallback: spell unknown characters by their UTF-8 bytes, for 256 more ids.

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
            minloglevel=2,
        )
    except RuntimeError as error:  # its last words say how many ids the characters alone need
        raise UsageError(f"no tokenizer of vocab_size={vocab_size}: {_reason(error)}") from error
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, model.getvalue())
    tokenizer = Tokenizer(model.getvalue(), context_length=2)
    if tokenizer.vocab_size < vocab_size:
        logging.getLogger(__name__).warning(
            "vocab_size shrank from %d to %d: %d captions support no more",
            vocab_size,
            tokenizer.vocab_size,
            len(sample),
        )
    return TokenizerInfo(
        vocab_size=tokenizer.vocab_size,
        requested=vocab_size,
        num_captions=len(sample),
        fingerprint=tokenizer.fingerprint,
    )


class Tokenizer:
    """Encodes captions; picklable, and light enough to travel to worker processes.

    Attributes:
      context_length: ids in a row, `l`.
      vocab_size: number of ids.
      fingerprint: hexadecimal SHA-256 of the model's bytes.
    """

    def __init__(self, model: str | os.PathLike | bytes, context_length: int):
        """Reads a model.

        Args:
          model: a file of `train_tokenizer`, or its bytes.
          context_length: ids in a row; at least 2, for [bos] and [eos].

        Raises:
          UsageError: no such file, no SentencePiece model, or other special ids than ours.
        """
        if context_length < 2:
            raise UsageError(f"context_length={context_length} has no room for [bos] and [eos]")
        name = "this tokenizer" if isinstance(model, bytes) else os.fspath(model)
        self._model = model if isinstance(model, bytes) else _read(Path(model))
        self._processor = _load(self._model, name)
        self.context_length = context_length
        self.vocab_size: int = self._processor.vocab_size()
        self.fingerprint = hashlib.sha256(self._model).hexdigest()

    def __reduce__(self):
        return Tokenizer, (self._model, self.context_length)

    def encode(self, text: str) -> np.ndarray:
        """One caption as ids; what does not fit is cut before [eos].

        Returns:
          `[l]` int32, filled up with 0.
        """
        text = text[: self.context_length * _MAX_CHARACTERS_PER_TOKEN]
        pieces = self._processor.encode(_to_utf8(text))[: self.context_length - 2]
        row = np.full(self.context_length, PAD, np.int32)
        row[: len(pieces) + 2] = [BOS, *pieces, EOS]
        return row

    def encode_batch(self, texts: Sequence[str]) -> np.ndarray:
        """Captions as ids, `[n, l]` int32."""
        rows = np.empty((len(texts), self.context_length), np.int32)
        for i, text in enumerate(texts):
            rows[i] = self.encode(text)
        return rows

    def decode(self, ids: Iterable[int]) -> str:
        """The text of a row up to its [eos], folded as in training."""
        ids = [int(i) for i in ids]
        ids = ids[: ids.index(EOS)] if EOS in ids else ids
        return self._processor.decode([i for i in ids if i not in (PAD, BOS)])


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


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise UsageError(f"cannot read the tokenizer {path}: {error.strerror}") from error


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
