"""Names of a config to entries of tables."""

import importlib
from collections.abc import Mapping
from typing import TypeVar

from nlip_jax.errors import UsageError

T = TypeVar("T")


def lookup(name: str, table: Mapping[str, T], *, field: str) -> T:
    """The entry of a table, or an error that lists the choices.

    Args:
      name: from the config; "package.module:name" imports a user's own object.
      table: name -> entry.
      field: of the config, for the message.

    Raises:
      UsageError: the name is in no table and cannot be imported.
    """
    if name in table:
        return table[name]
    if ":" in name:
        module, _, attribute = name.partition(":")
        try:
            return getattr(importlib.import_module(module), attribute)
        except (ImportError, AttributeError, ValueError) as error:
            raise UsageError(f"config.{field}={name!r} cannot be imported: {error}") from error
    raise UsageError(f"config.{field}={name!r}: choose one of {', '.join(table)}")


