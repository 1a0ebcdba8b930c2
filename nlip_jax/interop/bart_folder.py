"""A folder of a published BART, laid out as Hugging Face does it."""

import json
from pathlib import Path
from typing import Any

import numpy as np

from nlip_jax.errors import UsageError
from nlip_jax.interop.safetensors_file import read_tensors

_CONFIG, _WEIGHTS, _PICKLE = "config.json", "model.safetensors", "pytorch_model.bin"

SIZES = (
    *("d_model", "vocab_size", "max_position_embeddings"),
    *("encoder_layers", "encoder_attention_heads", "encoder_ffn_dim"),
    *("decoder_layers", "decoder_attention_heads", "decoder_ffn_dim"),
    *("bos_token_id", "eos_token_id", "pad_token_id"),
)

# What else config.json may say of the arrangement -> the value that the modules here work with.
_ARRANGEMENT = {
    "model_type": "bart",
    "activation_function": "gelu",
    "scale_embedding": False,
    "normalize_before": False,
    "normalize_embedding": True,
    "add_final_layer_norm": False,
    "add_bias_logits": False,
    "static_position_embeddings": False,
    "tie_word_embeddings": True,
}
# The others may be left to Hugging Face's defaults.
_MUST_SAY = ("model_type", "activation_function")


def read_sizes(folder: Path) -> dict[str, int]:
    """The sizes and special ids of a BART, by the names in `SIZES`.

    Args:
      folder: that holds config.json.

    Raises:
      UsageError: it is not there, damaged, or of a model that is arranged otherwise.
    """
    path = folder / _CONFIG
    try:
        content = json.loads(path.read_bytes())
    except OSError as error:
        raise UsageError(
            f"config.nlip.bart={folder}: cannot read {_CONFIG}: {error.strerror}; it must be the "
            f"folder of a BART from Hugging Face, with {_CONFIG} and {_WEIGHTS}"
        ) from error
    except ValueError as error:
        raise UsageError(f"{path} is no JSON: {error}") from error
    if not isinstance(content, dict):
        raise UsageError(f"{path} holds no JSON object")
    for name, needed in _ARRANGEMENT.items():
        found = content.get(name, None if name in _MUST_SAY else needed)
        if found != needed:
            raise UsageError(
                f"{path} has {name}={found!r} and must have {needed!r}, as bart-base has: the text "
                "encoder and the decoder are arranged so; take such a model, or none"
            )
    lacking = [name for name in SIZES if not _is_count(content.get(name))]
    if lacking:
        raise UsageError(f"{path} lacks {', '.join(lacking)}, or they are no whole numbers")
    return {name: content[name] for name in SIZES}


def read_weights(folder: Path) -> dict[str, np.ndarray]:
    """The weights of a BART, by Hugging Face's names.

    Args:
      folder: that holds model.safetensors.

    Raises:
      UsageError: it is not there, or damaged.
    """
    path = folder / _WEIGHTS
    if not path.is_file() and (folder / _PICKLE).is_file():
        raise UsageError(
            f"{folder} has {_PICKLE}, a pickle, which is never read since opening it can run any "
            f"code: save the model again as {_WEIGHTS}"
        )
    return read_tensors(path)


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0
