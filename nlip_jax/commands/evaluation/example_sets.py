"""Which examples an evaluator looks at: two models are only compared on the same ones."""

import dataclasses
import hashlib
from collections.abc import Mapping
from typing import Any

import numpy as np

# How a set is asked about, rather than what is in it: models are asked in different ways.
_PROMPTS = ("class_names", "templates")
_PLAIN = (str, bytes, int, float, np.generic, type(None))


def fingerprints(evaluators: Mapping[str, Any]) -> dict[str, str]:
    """KIND/SET -> hexadecimal fingerprint of its examples."""
    return {name: fingerprint(evaluator) for name, evaluator in evaluators.items()}


def fingerprint(evaluator: Any) -> str:
    """Changes whenever the examples of an evaluator, their order or their labels do.

    An evaluator that has a `fingerprint` says it itself. Of any other its data are looked at:
    sources, arrays and collections, in it and in its parts. Single numbers and words, functions and
    its own lists of these are settings: of metrics, numbers of shots, captions to be judged.
    """
    own = getattr(evaluator, "fingerprint", None)
    if isinstance(own, str):
        return own
    digest = hashlib.sha256()
    for name, value in _fields(evaluator).items():
        if not _is_list_of_plain(value):
            _add_data(digest, name, value)
    return digest.hexdigest()[:16]


def _fields(value: Any) -> dict[str, Any]:
    if dataclasses.is_dataclass(value):
        return {f.name: getattr(value, f.name) for f in dataclasses.fields(value)}
    return dict(getattr(value, "__dict__", {}))


def _is_list_of_plain(value: Any) -> bool:
    return isinstance(value, tuple | list) and all(isinstance(item, _PLAIN) for item in value)


def _add_data(digest: Any, name: str, value: Any) -> None:
    """Adds a field of an evaluator or of one of its parts."""
    own = getattr(value, "fingerprint", None)
    if name.rpartition(".")[2] in _PROMPTS or isinstance(value, _PLAIN):
        return
    if dataclasses.is_dataclass(value) and not isinstance(own, str):
        for key, part in _fields(value).items():
            _add_data(digest, f"{name}.{key}", part)
    else:
        _add(digest, name, value)


def _add(digest: Any, name: str, value: Any) -> None:
    """Adds a value and all that is in it, numbers and words too."""
    own = getattr(value, "fingerprint", None)
    if isinstance(own, str):  # a source, whatever it is made of
        digest.update(f"{name}:{own};".encode())
    elif isinstance(value, np.ndarray):
        digest.update(f"{name}:{value.dtype.str}{value.shape};".encode())
        digest.update(np.ascontiguousarray(value).tobytes())
    elif isinstance(value, _PLAIN):
        digest.update(f"{name}:{value!r};".encode())
    elif isinstance(value, Mapping):
        for key in value:
            _add(digest, f"{name}.{key}", value[key])
    elif isinstance(value, tuple | list):
        for i, item in enumerate(value):
            _add(digest, f"{name}.{i}", item)
    elif dataclasses.is_dataclass(value):
        for key, part in _fields(value).items():
            _add(digest, f"{name}.{key}", part)
