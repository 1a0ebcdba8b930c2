"""How a config makes captions."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
from ml_collections import ConfigDict

from nlip_jax.build.names import lookup
from nlip_jax.columns import read_column
from nlip_jax.data.source import Source
from nlip_jax.data.text.tokenizer import Tokenizer
from nlip_jax.errors import UsageError
from nlip_jax.methods.captioner import Captioner
from nlip_jax.methods.similarities import FeatureSimilarity
from nlip_jax.models.decoding.decoding import KINDS, Decoding


def given_columns(
    config: ConfigDict, *, source: Source, tokenizer: Tokenizer
) -> dict[str, np.ndarray]:
    """Columns that a run takes from elsewhere, by name: the captions of `completion.captions`.

    Raises:
      UsageError: no finished column or run lies there, or one of other data or vocabulary.
    """
    folder = config.nlip.completion.captions
    if config.method != "nlip" or not folder:
        return {}
    numberings = [dataclasses.asdict(numbering) for numbering in source.numberings]
    directory = _column_folder(Path(folder).expanduser())
    values = read_column(directory, numberings=numberings)
    made = json.loads((directory / "DONE").read_text())["meta"].get("tokenizer")
    length = config.tokenizer.context_length
    if made != tokenizer.fingerprint or values.shape[1:] != (length,):
        raise UsageError(
            f"config.nlip.completion.captions={folder}: its captions are rows of "
            f"{values.shape[-1] if values.ndim > 1 else 1} tokens of the vocabulary {made}, and "
            f"this run has rows of {length} of {tokenizer.fingerprint}: set config.tokenizer.model "
            "to the vocabulary of the run that made them, and the same context_length"
        )
    return {"synthetic_caption": values}


def _column_folder(folder: Path) -> Path:
    """A folder of captions itself; of a run, that of its last ones, once it is finished."""
    if not (folder / "config.json").is_file():
        return folder
    if not (folder / "results.json").is_file():
        raise UsageError(
            f"config.nlip.completion.captions={folder}: this run is not finished and may make "
            "other captions; let it end, or name one of its columns/synthetic_caption/NUMBER"
        )
    made = sorted(done.parent for done in (folder / "columns/synthetic_caption").glob("*/DONE"))
    if not made:
        raise UsageError(
            f"config.nlip.completion.captions={folder}: this run has made no captions; take one "
            "with nlip.model=four_part and completion"
        )
    return made[-1]


def can_caption(config: ConfigDict) -> bool:
    """Whether the model of a config makes captions."""
    fields = config.nlip
    return config.method == "nlip" and fields.model == "four_part" and fields.lm_weight > 0


def make_captioner(
    config: ConfigDict,
    kind: str,
    *,
    field: str,
    model: Any,
    tokenizer: Tokenizer,
    similarity: FeatureSimilarity,
    min_confidence: float = 0.0,
) -> Captioner:
    """What makes captions with a decoding of the config.

    Args:
      config: whose block `captions` is read.
      kind: of decoding.
      field: of the config that names it, for messages.
      model: a `FourPart`.
      tokenizer: of the captions.
      similarity: that chooses among candidates.
      min_confidence: of captions that are kept.

    Raises:
      UsageError: there is no such kind, the lengths do not fit the tokenizer's rows, or the
        confidence is none.
    """
    lookup(kind, KINDS, field=field)
    fields = config.captions
    prompt = tuple(tokenizer.pieces(fields.prompt)) if fields.prompt else ()
    room = config.tokenizer.context_length - 2 - len(prompt)
    if not fields.min_length <= fields.max_length <= room:
        raise UsageError(
            f"config.captions.min_length={fields.min_length} and max_length={fields.max_length}: "
            f"must be in this order and at most {room}, which is config.tokenizer.context_length="
            f"{config.tokenizer.context_length} less [bos], [eos] and {len(prompt)} of the prompt"
        )
    _check_confidence(min_confidence, kind, fields.length_penalty)
    several = fields.candidates if KINDS[kind].draws else 1
    return Captioner(
        model=model,
        similarity=similarity,
        decoding=Decoding(
            kind=kind,
            top_p=fields.top_p,
            top_k=fields.top_k,
            temperature=fields.temperature,
            beams=fields.beams,
            length_penalty=fields.length_penalty,
            min_length=fields.min_length,
            max_length=fields.max_length,
            repetition_penalty=fields.repetition_penalty,
            no_repeat_ngram=fields.no_repeat_ngram,
            candidates=several,
        ),
        bos=tokenizer.special_ids["bos"],
        eos=tokenizer.special_ids["eos"],
        prompt=prompt,
        context_length=config.tokenizer.context_length,
        forbidden=tuple(
            tokenizer.special_ids[name]
            for name in ("unk", "mask", "unused")
            if name in tokenizer.special_ids
        ),
        min_confidence=min_confidence,
    )


def _check_confidence(min_confidence: float, kind: str, length_penalty: float) -> None:
    if not 0 <= min_confidence < 1:
        raise UsageError(
            f"config.captions.min_confidence={min_confidence} is a probability in [0, 1); 0 keeps "
            "all captions"
        )
    if min_confidence and kind == "beam" and length_penalty != 1:
        raise UsageError(
            f"config.captions.min_confidence={min_confidence} with decoding=beam needs "
            f"config.captions.length_penalty=1, not {length_penalty}: with another one the score "
            "of a caption is no mean of its tokens"
        )
