"""Weights from safetensors files. Pickles are never read: opening one can run any code."""

from pathlib import Path

import numpy as np

from nlip_jax.errors import UsageError

# The package is imported by runs that read such a file.
# ruff: noqa: PLC0415


def read_tensors(path: Path) -> dict[str, np.ndarray]:
    """All tensors of a file, in the dtypes they were saved with.

    Args:
      path: of the file.

    Raises:
      UsageError: the file is not there or damaged, or the package is not installed.
    """
    try:
        from safetensors import SafetensorError, safe_open
    except ImportError as error:
        raise UsageError(
            f"{path}: {error}; pip install 'nlip_jax[interop]' brings what reads it"
        ) from error
    try:
        with safe_open(path, framework="np") as file:
            return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (OSError, SafetensorError, TypeError) as error:
        raise UsageError(f"{path} cannot be read as safetensors: {error}") from error
