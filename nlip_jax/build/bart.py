"""What a run of NLIP takes over from a published BART."""

from pathlib import Path

import numpy as np
from ml_collections import ConfigDict

from nlip_jax.data.text.tokenizer import PAD, Tokenizer
from nlip_jax.errors import UsageError
from nlip_jax.interop import bart, bart_folder
from nlip_jax.types import PyTree

# Fields of the text encoder and the decoder that make them BART's.
AS_BART = {"norm": "post", "activation": "gelu", "embedding_norm": True, "epsilon": 1e-5}

# Size in BART's config.json -> field of ours that must be equal.
_SIZES = {
    "d_model": "model.text.width",
    "encoder_layers": "model.text.depth",
    "encoder_attention_heads": "model.text.heads",
    "encoder_ffn_dim": "model.text.mlp_dim",
    "decoder_layers": "model.decoder.depth",
    "decoder_attention_heads": "model.decoder.heads",
    "decoder_ffn_dim": "model.decoder.mlp_dim",
}


def starts_from_bart(config: ConfigDict) -> bool:
    """Whether text encoder and decoder are arranged as BART's, and begin with its weights."""
    return config.method == "nlip" and bool(config.nlip.bart)


def read_bart(config: ConfigDict, *, tokenizer: Tokenizer, params: PyTree) -> dict[str, np.ndarray]:
    """The parameters that a run takes over at its start; of no others, and never again.

    Args:
      config: of the run; `starts_from_bart`.
      tokenizer: of the run.
      params: of the run's model, or their shapes.

    Returns:
      Name of a parameter, joined by "/" -> float32 of its shape.

    Raises:
      UsageError: the folder lacks something, or is of a model with other sizes or pieces.
    """
    folder = Path(config.nlip.bart).expanduser()
    sizes = bart_folder.read_sizes(folder)
    _check_sizes(config, sizes)
    _check_tokenizer(config, sizes, tokenizer)
    return bart.to_params(
        bart_folder.read_weights(folder),
        params=params,
        id_offset=tokenizer.id_offset,
        pad=sizes["pad_token_id"],
    )


def _check_sizes(config: ConfigDict, sizes: dict[str, int]) -> None:
    own = {field: _field(config, field) for field in _SIZES.values()}
    wrong = [
        f"{name}={sizes[name]} and config.{field}={own[field]}"
        for name, field in _SIZES.items()
        if own[field] != sizes[name]
    ]
    if wrong:
        raise UsageError(
            f"config.nlip.bart={config.nlip.bart} has {', '.join(wrong)}: the sizes must be equal; "
            "set these fields to those of the folder"
        )
    length, most = config.tokenizer.context_length, sizes["max_position_embeddings"]
    if length > most:
        raise UsageError(
            f"config.tokenizer.context_length={length}: config.nlip.bart={config.nlip.bart} knows "
            f"max_position_embeddings={most}; take as many at most"
        )


def _check_tokenizer(config: ConfigDict, sizes: dict[str, int], tokenizer: Tokenizer) -> None:
    """Refuses a tokenizer whose ids mean other pieces than BART's."""
    offset = tokenizer.id_offset
    special = tokenizer.special_ids
    pairs = {
        "vocab_size": tokenizer.vocab_size - offset,
        "bos_token_id": special["bos"] - offset,
        "eos_token_id": special["eos"] - offset,
    }
    wrong = [
        f"{name}={sizes[name]} and the tokenizer {found}"
        for name, found in pairs.items()
        if sizes[name] != found
    ]
    if not offset and sizes["pad_token_id"] != PAD:
        wrong.append(f"pad_token_id={sizes['pad_token_id']} and the tokenizer {PAD}")
    if sizes["pad_token_id"] >= sizes["vocab_size"]:
        wrong.append(f"pad_token_id={sizes['pad_token_id']}, which is none of its pieces")
    if wrong:
        raise UsageError(
            f"config.nlip.bart={config.nlip.bart} has {', '.join(wrong)}: they must be equal; set "
            f"config.tokenizer.name='bart' (now {config.tokenizer.name!r}) and config.tokenizer."
            "model to the vocabulary in that folder"
        )


def _field(config: ConfigDict, name: str) -> int:
    _, part, field = name.split(".")
    value = config.model[part][field]
    return 4 * config.model.text.width if field == "mlp_dim" and not value else value
