"""Weights of BART as parameters of a text encoder and a caption decoder.

Lewis et al. 2020, BART: denoising sequence-to-sequence pre-training (arXiv:1910.13461), in the
names of Hugging Face's `BartModel` and `BartForConditionalGeneration`.
"""

import re
from collections.abc import Mapping
from typing import Any

import numpy as np
from flax.traverse_util import flatten_dict

from nlip_jax.errors import UsageError
from nlip_jax.types import PyTree

_SIDES = {"text": "encoder", "decoder": "decoder"}  # part of a `FourPart` -> BART's name for it
_OWN = re.compile(r"text/concepts/")  # parameters that BART has no counterpart for
_TABLES = (
    "shared.weight",
    "encoder.embed_tokens.weight",
    "decoder.embed_tokens.weight",
    "lm_head.weight",
)
_LOGITS_BIAS = "final_logits_bias"  # not learned in BART: zeros
_FIRST_POSITION = 2  # rows in front of the table of positions that stand for none

# Part of a layer here -> in BART.
_PARTS = {
    "attention_norm": "self_attn_layer_norm",
    "cross_attention_norm": "encoder_attn_layer_norm",
    "mlp_norm": "final_layer_norm",
    "mlp/wide": "fc1",
    "mlp/narrow": "fc2",
    **{
        f"{ours}/{part}": f"{theirs}.{name}_proj"
        for ours, theirs in (("attention", "self_attn"), ("cross_attention", "encoder_attn"))
        for part, name in (("query", "q"), ("key", "k"), ("value", "v"), ("out", "out"))
    },
}
_LEAVES = {"kernel": "weight", "scale": "weight", "bias": "bias"}
_IN_LAYER = re.compile(r"(?:blocks|block_(\d+))/(.+)/(\w+)")


def to_params(
    weights: Mapping[str, np.ndarray], *, params: PyTree, id_offset: int, pad: int
) -> dict[str, np.ndarray]:
    """Parameters that stand for weights of BART; every weight is used and none is missing.

    Args:
      weights: by Hugging Face's names, with "model." in front or without; any float dtype.
      params: of a `FourPart` with norm="post" and embedding_norm, or their shapes; layers may be
        stacked for a scan.
      id_offset: of the tokenizer; the table of words gets so many rows in front, for padding.
      pad: id of BART's own piece for padding, whose row those are.

    Returns:
      Name of a parameter, joined by "/" -> float32 of its shape. Concept places and all that is
      outside of text encoder and decoder are not among them.

    Raises:
      UsageError: names that are missing or not used, all of them, or a shape that does not fit.
    """
    given = _Weights(weights)
    leaves = flatten_dict({part: params[part] for part in _SIDES}, sep="/")
    found = {
        name: given.parameter(name, leaf.shape, id_offset=id_offset, pad=pad)
        for name, leaf in leaves.items()
        if not _OWN.match(name)
    }
    given.check()
    return found


class _Weights:
    """Weights by name; takes down which were asked for, and how that went."""

    def __init__(self, weights: Mapping[str, np.ndarray]) -> None:
        self._weights = {name.removeprefix("model."): w for name, w in weights.items()}
        if len(self._weights) != len(weights):
            raise UsageError("these weights of BART have names both with and without 'model.'")
        self._used: set[str] = set()
        self._missing: list[str] = []
        self._misfits: list[str] = []

    def check(self) -> None:
        """Raises UsageError unless all that was asked for was there, fitted, and was all."""
        unused = sorted(set(self._weights) - self._used)
        problems = {
            "missing": self._missing,
            "not used": unused,
            "of another shape": self._misfits,
        }
        said = [f"{what}: {', '.join(names)}" for what, names in problems.items() if names]
        if said:
            raise UsageError(f"these are not the weights of this BART; {'; '.join(said)}")

    def parameter(
        self, name: str, shape: tuple[int, ...], *, id_offset: int, pad: int
    ) -> np.ndarray | None:
        """The value of a parameter; None where something is wrong, which `check` tells."""
        part, _, rest = name.partition("/")
        side = _SIDES[part]
        if rest == "embedding/embedding":
            return self._table(shape, id_offset=id_offset, pad=pad)
        if rest == "position":
            return self._positions(f"{side}.embed_positions.weight", shape)
        if rest.startswith("first_norm/"):
            leaf = rest.removeprefix("first_norm/")
            return self._take(f"{side}.layernorm_embedding.{_LEAVES[leaf]}", leaf, shape)
        number, module, leaf = _IN_LAYER.fullmatch(rest.partition("/")[2]).groups()
        suffix = f"{_PARTS[module]}.{_LEAVES[leaf]}"
        if number is not None:
            return self._take(f"{side}.layers.{number}.{suffix}", leaf, shape)
        layers = [
            self._take(f"{side}.layers.{i}.{suffix}", leaf, shape[1:]) for i in range(shape[0])
        ]
        return None if any(layer is None for layer in layers) else np.stack(layers)

    def _get(self, name: str) -> np.ndarray | None:
        self._used.add(name)
        if name not in self._weights:
            self._missing.append(name)
            return None
        return np.asarray(self._weights[name], np.float32)

    def _take(self, name: str, leaf: str, shape: tuple[int, ...]) -> np.ndarray | None:
        """A weight in the shape of a parameter: PyTorch's matrices are [out, in]."""
        value = self._get(name)
        if value is None:
            return None
        value = value.T if leaf == "kernel" else value
        # The heads are an axis of their own here, first or last; the other axis has to fit.
        ends = (value.shape[:1] == shape[:1]) or (value.shape[-1:] == shape[-1:])
        flat = leaf != "kernel" and value.ndim == 1
        matrix = leaf == "kernel" and value.ndim == 2 and ends
        if value.size != np.prod(shape) or not (flat or matrix):
            return self._misfit(name, shape)
        return value.reshape(shape)

    def _positions(self, name: str, shape: tuple[int, ...]) -> np.ndarray | None:
        value = self._get(name)
        if value is None:
            return None
        rows = value[_FIRST_POSITION : _FIRST_POSITION + shape[0]]
        return rows if rows.shape == shape else self._misfit(name, shape)

    def _table(self, shape: tuple[int, ...], *, id_offset: int, pad: int) -> np.ndarray | None:
        """The one table of words, whatever names it was saved under."""
        self._used |= {*_TABLES, _LOGITS_BIAS}
        names = [name for name in _TABLES if name in self._weights]
        if not names:
            self._missing.append(_TABLES[0])
            return None
        table = self._weights[names[0]]
        for name in names[1:]:
            if not np.array_equal(self._weights[name], table):
                raise UsageError(
                    f"{name} of these weights of BART differs from {names[0]}: the text encoder "
                    "and the decoder share one table of words, which also makes the logits"
                )
        if np.any(self._weights.get(_LOGITS_BIAS, np.zeros(1))):
            raise UsageError(
                f"{_LOGITS_BIAS} of these weights of BART is not all zeros; there is no bias here"
            )
        table = np.asarray(table, np.float32)
        if table.shape != (shape[0] - id_offset, *shape[1:]):
            return self._misfit(names[0], (shape[0] - id_offset, *shape[1:]))
        return np.concatenate([np.repeat(table[pad : pad + 1], id_offset, axis=0), table])

    def _misfit(self, name: str, shape: tuple[int, ...]) -> Any:
        found = "x".join(map(str, self._weights[name].shape))
        self._misfits.append(f"{name} ({found}, for a parameter of {'x'.join(map(str, shape))})")
        return None
