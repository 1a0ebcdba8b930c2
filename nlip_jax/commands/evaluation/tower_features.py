"""What an imported model computes, looked at before anything is compiled."""

import contextlib
from collections.abc import Iterator, Mapping
from typing import Any

import jax
import numpy as np

from nlip_jax.errors import RunError, UsageError

# What each similarity compares: function, name of the features, axes.
_COMPARED = {
    "dot": (
        ("image_features", "image_embed", ("b", "d")),
        ("text_features", "text_embed", ("b", "d")),
    ),
    "token_max": (
        ("image_features", "image_tokens", ("b", "n", "d")),
        ("text_features", "text_tokens", ("b", "l", "d")),
        ("text_features", "text_mask", ("b", "l")),
    ),
}
_POOLED = ("pooled_features", "pooled", ("b", "width"))


def check_features(
    model: Mapping[str, Any], *, image_size: int, batch_size: int, what: str
) -> None:
    """Traces the functions of a model, which computes nothing, and looks at what they return.

    Args:
      model: its fields.
      image_size: pixels of a side.
      batch_size: of the images and texts that the functions will get.
      what: names the model, for messages.

    Raises:
      UsageError: a function fails, or returns other features than are compared.
    """
    length = len(model["tokenizer"].encode("a text"))
    images = jax.ShapeDtypeStruct((batch_size, image_size, image_size, 3), np.uint8)
    tokens = jax.ShapeDtypeStruct((batch_size, length), np.int32)
    inputs = {
        "image_features": images,
        "text_features": tokens,
        "pooled_features": images,
        "caption": images,
    }
    found = {}
    for function in (function for function in inputs if function in model):
        with users_code(f"{what}: {function}"):
            found[function] = jax.eval_shape(model[function], model["variables"], inputs[function])
    if "caption" in found:
        tokens = found["caption"]
        if getattr(tokens, "shape", ())[:1] != (batch_size,) or tokens.ndim != 2:
            raise UsageError(f"{what}: caption must return tokens [b, l], one row an image")
    widths = {}
    for function, feature, axes in (*_COMPARED[model["similarity"]], _POOLED):
        if function not in found:
            continue
        array = _feature(found[function], feature, what=f"{what}: {function}")
        if array.ndim != len(axes) or array.shape[0] != batch_size:
            raise UsageError(
                f"{what}: {feature} of {batch_size} rows has the shape "
                f"{list(array.shape)}: must be [{', '.join(axes)}]"
            )
        if axes[-1] == "d":
            widths[feature] = array.shape[-1]
    if len(set(widths.values())) > 1:
        both = " and ".join(f"{feature} {width}" for feature, width in widths.items())
        raise UsageError(f"{what}: both sides must have the same d, but {both}")


@contextlib.contextmanager
def users_code(what: str) -> Iterator[None]:
    """Turns whatever a user's code raises into one line.

    Args:
      what: was called, for the message.

    Raises:
      UsageError: it raised something.
    """
    try:
        yield
    except (UsageError, RunError):
        raise
    except Exception as error:  # it may raise anything
        reason = str(error).strip().splitlines() or [""]
        raise UsageError(f"{what}: {type(error).__name__}: {reason[0]}") from error


def _feature(features: Any, name: str, *, what: str) -> jax.ShapeDtypeStruct:
    """One of the features that a function returned."""
    if not isinstance(features, Mapping):
        raise UsageError(f"{what} must return a mapping with {name!r}, not an array or a list")
    if name not in features:
        others = ", ".join(map(repr, features)) or "nothing"
        raise UsageError(f"{what} must return {name!r}, and returned {others}")
    return features[name]
