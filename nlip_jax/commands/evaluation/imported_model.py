"""`--model=package.module:function`: a model of somebody else, as evaluators see it.

The function is called with (config, mesh) and returns an object, or a mapping, with `FIELDS`.
"""

import importlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh
from ml_collections import ConfigDict

from nlip_jax import build, sharding
from nlip_jax.commands.evaluation.subject import Subject, identity
from nlip_jax.commands.evaluation.tower_features import check_features, users_code
from nlip_jax.commands.ranges import check_numbers
from nlip_jax.errors import UsageError
from nlip_jax.evaluators.base import Towers
from nlip_jax.methods.similarities import SIMILARITIES
from nlip_jax.train.map_examples import Mapper
from nlip_jax.train.state import fingerprint
from nlip_jax.types import PyTree

# What a model has to have, and what it may have.
FIELDS = {
    "variables": "pytree of arrays",
    "image_features": 'function (variables, images [b, h, w, 3] uint8) -> {"image_embed": [b, d]}',
    "text_features": 'function (variables, tokens [b, l] int32) -> {"text_embed": [b, d]}; both '
    "of length 1, since dot products are compared",
    "similarity": " or ".join(SIMILARITIES),
    "tokenizer": "object with encode(text) -> [l] int32",
}
OPTIONAL = ("pooled_features", "caption")
_FUNCTIONS = ("image_features", "text_features", *OPTIONAL)


def open_model(name: str, config: ConfigDict, *, output: Path) -> Subject:
    """Calls the function and checks what it returns.

    Args:
      name: package.module:function.
      config: whose evaluators, transform of images and mesh are used.
      output: where indices of evaluation sets go.

    Raises:
      UsageError: there is no such function, or it returns no model.
    """
    check_numbers(config)
    mesh = build.make_mesh(config, trains=False)
    mapper = Mapper(mesh=mesh, reading=build.make_reading(config))
    fields = load_model(name, config, mesh, flag="--model")
    batch_size = config.evaluation.rows_per_device * sharding.num_row_shards(mesh)
    variables, similarity = fields.pop("variables"), fields.pop("similarity")
    evaluators = build.make_evaluators(
        config, output, similarity=similarity, can_caption="caption" in fields
    )
    towers = Towers(
        variables=variables,
        similarity=SIMILARITIES[similarity],
        transform=build.make_transform(config),
        collect=mapper.collect,
        batch_size=batch_size,
        mesh=mesh,
        **fields,
    )
    exact = fingerprint(variables)
    return Subject(
        name=name,
        identity=identity(config, name, similarity, exact),
        mesh=mesh,
        evaluators=evaluators,
        towers=lambda step: towers,
        provenance={"model": name, "variables": exact},
    )


def load_model(name: str, config: ConfigDict, mesh: Mesh, *, flag: str) -> dict[str, Any]:
    """Calls the function of a model and checks what it returns.

    Args:
      name: package.module:function.
      config: that it is called with; image_size and rows_per_device of it are used.
      mesh: likewise; the variables are put onto it.
      flag: or field of the config that names it, for messages.

    Returns:
      The fields of the model that evaluators use.

    Raises:
      UsageError: there is no such function, or it returns no model.
    """
    what = f"{flag}={name}"
    fields = check_model(_call(name, config, mesh, what=what), what=what)
    batch_size = config.evaluation.rows_per_device * sharding.num_row_shards(mesh)
    check_features(fields, image_size=config.data.image_size, batch_size=batch_size, what=what)
    return fields | {"variables": place(fields["variables"], mesh)}


def check_model(model: Any, *, what: str) -> dict[str, Any]:
    """The fields of a model that evaluators use.

    Args:
      model: what the function returned.
      what: names the function, for messages.

    Raises:
      UsageError: one is missing, or is not what it has to be.
    """
    found = {
        field: model.get(field) if isinstance(model, Mapping) else getattr(model, field, None)
        for field in (*FIELDS, *OPTIONAL)
    }
    for field, meaning in FIELDS.items():
        if found[field] is None:
            raise UsageError(f"{what} returned a model without {field} ({meaning})")
    for field in _FUNCTIONS:
        if found[field] is not None and not callable(found[field]):
            raise UsageError(f"{what}: {field} is {found[field]!r}, not a function")
    if found["similarity"] not in SIMILARITIES:
        raise UsageError(
            f"{what}: similarity={found['similarity']!r}: choose one of "
            f"{', '.join(SIMILARITIES)}"
        )
    odd = [v for v in jax.tree.leaves(found["variables"]) if not _is_array(v)]
    if odd:
        raise UsageError(
            f"{what}: variables must be a {FIELDS['variables']}, and {odd[0]!r} is in it"
        )
    if not _encodes(found["tokenizer"], what=what):
        raise UsageError(
            f"{what}: tokenizer must be an {FIELDS['tokenizer']}, of one length for all "
            "texts"
        )
    if found["caption"] is not None and not callable(getattr(found["tokenizer"], "decode", None)):
        raise UsageError(
            f"{what} has caption, and its tokenizer no decode(tokens [l]) -> text"
        )
    return {field: value for field, value in found.items() if value is not None}


def _encodes(tokenizer: Any, *, what: str) -> bool:
    encode = getattr(tokenizer, "encode", None)
    if not callable(encode):
        return False
    with users_code(f"{what}: tokenizer.encode"):
        rows = [encode(text) for text in ("a text", "a text of some more words")]
    return rows[0].shape == rows[1].shape if all(map(_is_row, rows)) else False


def _is_array(value: Any) -> bool:
    return isinstance(value, jax.Array | np.ndarray | np.number | int | float)


def _is_row(row: Any) -> bool:
    return isinstance(row, np.ndarray) and row.ndim == 1 and row.dtype == np.int32


def place(variables: PyTree, mesh: Mesh) -> PyTree:
    """Arrays on the devices of the mesh: where they are, or replicated."""
    devices = set(mesh.devices.flat)

    def on_mesh(value: Any) -> jax.Array:
        if isinstance(value, jax.Array) and value.sharding.device_set == devices:
            return value
        return jax.device_put(value, sharding.replicated(mesh))

    return jax.tree.map(on_mesh, variables)


def _call(name: str, config: ConfigDict, mesh: Mesh, *, what: str) -> Any:
    module, _, attribute = name.partition(":")
    try:
        function = getattr(importlib.import_module(module), attribute)
    except Exception as error:  # a user's module may raise anything
        reason = str(error).strip().splitlines() or [type(error).__name__]
        raise UsageError(
            f"{what} cannot be imported as package.module:function: {reason[0]}"
        ) from error
    if not callable(function):
        raise UsageError(f"{what} is {type(function).__name__}, not a function")
    with users_code(what):
        return function(config, mesh)
