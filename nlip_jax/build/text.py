"""Tokenizers of a config."""

import json
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from nlip_jax.build.names import lookup
from nlip_jax.data.source import Source
from nlip_jax.data.text.masking import MaskText
from nlip_jax.data.text.sentence_piece import SentencePieceTokenizer, train_sentence_piece
from nlip_jax.data.text.statistics import sample_captions
from nlip_jax.data.text.tokenizer import Tokenizer
from nlip_jax.errors import UsageError
from nlip_jax.files import write_atomically
from nlip_jax.sharding import on_leader

# The packages behind the published vocabularies are imported by runs that use them.
# ruff: noqa: PLC0415


def _sentence_piece(spec: ConfigDict, *, source: Source, workdir: Path) -> Tokenizer:
    if not spec.model:
        on_leader(lambda: _train_once(spec, source=source, workdir=workdir))
    return SentencePieceTokenizer(
        spec.model or workdir / "tokenizer.model", context_length=spec.context_length
    )


def _clip(spec: ConfigDict, *, source: Source, workdir: Path) -> Tokenizer:
    del source, workdir
    from nlip_jax.data.text.clip_bpe import ClipTokenizer, read_vocabulary

    return ClipTokenizer(read_vocabulary(spec.model), context_length=spec.context_length)


def _bert(spec: ConfigDict, *, source: Source, workdir: Path) -> Tokenizer:
    del source, workdir
    from nlip_jax.data.text.word_piece import BertTokenizer, read_vocabulary

    vocabulary = read_vocabulary(spec.model, lower_case=spec.lower_case)
    return BertTokenizer(vocabulary, context_length=spec.context_length)


def _bart(spec: ConfigDict, *, source: Source, workdir: Path) -> Tokenizer:
    del source, workdir
    from nlip_jax.data.text.bart_bpe import BartTokenizer, read_vocabulary

    return BartTokenizer(read_vocabulary(spec.model), context_length=spec.context_length)


# config.tokenizer.name -> function of its block; "package.module:function" is one of your own.
TOKENIZERS = {"sentencepiece": _sentence_piece, "clip": _clip, "bert": _bert, "bart": _bart}


def open_tokenizer(config: ConfigDict, *, source: Source, workdir: Path) -> Tokenizer:
    """The tokenizer of the config; SentencePiece's may be trained from the captions of the run.

    Args:
      config: of the run.
      source: whose captions it is trained from.
      workdir: where it is kept then.

    Raises:
      UsageError: the vocabulary is not to be used, or a run began here with another one.
    """
    make = lookup(config.tokenizer.name, TOKENIZERS, field="tokenizer.name")
    return make(config.tokenizer, source=source, workdir=workdir)


def reopen_tokenizer(config: ConfigDict, *, workdir: Path) -> Tokenizer:
    """The tokenizer of a run that has begun, without its captions.

    Args:
      config: of the run.
      workdir: of the run, which may have trained a vocabulary.

    Raises:
      UsageError: the vocabulary is gone, or the tokenizer is made from captions each time.
    """
    make = lookup(config.tokenizer.name, TOKENIZERS, field="tokenizer.name")
    spec = config.tokenizer.copy_and_resolve_references()
    if config.tokenizer.name == "sentencepiece" and not spec.model:
        spec.model = str(workdir / "tokenizer.model")
        if not Path(spec.model).is_file():
            raise UsageError(f"{spec.model}, this run's own vocabulary, is gone: bring it back")
    return make(spec, source=_NoCaptions(config.tokenizer.name), workdir=workdir)


class _NoCaptions:
    """Stands for the training data where only the model of a run is opened."""

    def __init__(self, tokenizer: str) -> None:
        self._tokenizer = tokenizer

    def __getattr__(self, name: str) -> Any:
        raise UsageError(
            f"config.tokenizer.name={self._tokenizer!r} asks for {name!r} of the training data, "
            "which is not opened here: have it keep its vocabulary in the workdir"
        )


def make_mask(config: ConfigDict, tokenizer: Tokenizer) -> MaskText:
    """What masks the tokens of methods that ask for it."""
    return MaskText(
        tokenizer=tokenizer,
        rate=config.data.mask_rate,
        whole_words=config.data.mask_whole_words,
        seed=config.seed,
    )


def _read_marker(marker: Path) -> dict[str, Any]:
    try:
        return json.loads(marker.read_text())
    except (OSError, ValueError):  # not there or damaged: nothing is known of the vocabulary
        return {}


def _train_once(spec: ConfigDict, *, source: Source, workdir: Path) -> None:
    """Trains WORKDIR/tokenizer.model, unless it is there and was made from the same.

    tokenizer.json beside it says what it was made from, and is written first: whatever a kill
    leaves behind is told apart from a file that someone put there.
    """
    path, marker = workdir / "tokenizer.model", workdir / "tokenizer.json"
    settings = {"vocab_size": spec.vocab_size, "max_sentences": spec.max_sentences}
    if path.exists():
        made = _read_marker(marker)
        trained = SentencePieceTokenizer(path, context_length=spec.context_length)
        if made.get("fingerprint") != trained.fingerprint:
            raise UsageError(
                f"{path} was not trained here: set config.tokenizer.model={path} to use it, or "
                "remove it to train one"
            )
        # Shards that were appended since change no id, and the vocabulary still serves.
        known = {numbering.fingerprint for numbering in source.numberings}
        if made["captions"] in known and made["settings"] == settings:
            return
        if (workdir / "data.json").exists():
            raise UsageError(
                f"the captions or config.tokenizer changed since the run in {workdir} began, and "
                f"its {path.name} was made from the old ones; bring them back or choose another "
                "--workdir"
            )
        path.unlink()
    captions = sample_captions(source, spec.max_sentences)
    model = train_sentence_piece(captions, **settings)
    made = {
        "fingerprint": SentencePieceTokenizer(model, context_length=2).fingerprint,
        "captions": source.numberings[-1].fingerprint,
        "settings": settings,
    }
    workdir.mkdir(parents=True, exist_ok=True)
    write_atomically(marker, json.dumps(made).encode())
    write_atomically(path, model)
