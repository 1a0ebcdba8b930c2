"""Features of searched images, kept on disk: the second query of the same images answers at once.

A folder KEY holds a .npy file for every kind of feature. KEY is made of all that they depend on:
parameters, images, transform, code. A folder is there whole or not at all; it may be removed at
any time. What a killed search left, KEY.PROCESS.tmp, goes an hour later.
"""

import contextlib
import hashlib
import json
import os
import shutil
import time
from pathlib import Path

import numpy as np

from nlip_jax import __version__
from nlip_jax.data.source import Source
from nlip_jax.errors import UsageError
from nlip_jax.evaluators.base import Towers
from nlip_jax.methods.base import Features
from nlip_jax.train.state import fingerprint

_ABANDONED = 3600.0  # seconds since anything was written into a folder that is not whole


def make_folder(folder: Path) -> None:
    """Makes the folder that features are kept in.

    Raises:
      UsageError: that is not possible.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise _cannot_write(folder, error) from error


def feature_key(towers: Towers, source: Source) -> str:
    """Identifies the features of all images of a source."""
    made_of = [
        fingerprint(towers.variables),
        source.fingerprint,
        source.num_images,
        repr(towers.transform.without_augmentation()),
        towers.similarity.uses_tokens,
        __version__,
    ]
    return hashlib.sha256(json.dumps(made_of).encode()).hexdigest()[:16]


def load_or_embed(towers: Towers, source: Source, *, folder: Path) -> tuple[Features, bool]:
    """Features of all images, as far as the model's similarity needs them.

    Args:
      towers: the model.
      source: the images.
      folder: where features are kept.

    Returns:
      Features `[num_images, ...]`, NaN where an image cannot be read, and whether they were kept.

    Raises:
      UsageError: the folder cannot be written.
      RunError: the model gives numbers that are not finite.
    """
    place = folder / feature_key(towers, source)
    kept = _load(place, num_images=source.num_images)
    if kept:
        return kept, True
    features = {
        name: values.astype(np.float32) if np.issubdtype(values.dtype, np.inexact) else values
        for name, values in towers.needed(towers.embed_images(source)).items()
    }
    _keep(place, features)
    return features, False


def _load(place: Path, *, num_images: int) -> Features:
    """What was kept; empty where nothing was, or not what it should be."""
    try:
        found = {path.stem: np.load(path, allow_pickle=False) for path in place.glob("*.npy")}
    except (OSError, ValueError, EOFError):
        return {}
    return found if all(len(values) == num_images for values in found.values()) else {}


def _keep(place: Path, features: Features) -> None:
    _remove_abandoned(place.parent)
    temporary = place.with_name(f"{place.name}.{os.getpid()}.tmp")
    try:
        temporary.mkdir(parents=True, exist_ok=True)
        for name, values in features.items():
            with (temporary / f"{name}.npy").open("wb") as file:
                np.save(file, values, allow_pickle=False)
                file.flush()
                os.fsync(file.fileno())
        if place.exists():  # damaged
            shutil.rmtree(place)
        temporary.rename(place)
    except OSError as error:
        if _load(place, num_images=len(next(iter(features.values())))):
            return  # another search was quicker
        raise _cannot_write(place.parent, error) from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _remove_abandoned(folder: Path) -> None:
    """Removes what killed searches left; another host may be writing what is younger."""
    for left in folder.glob("*.*.tmp"):
        with contextlib.suppress(OSError):
            written = max(path.stat().st_mtime for path in (left, *left.iterdir()))
            if time.time() - written > _ABANDONED:
                shutil.rmtree(left)


def _cannot_write(folder: Path, error: OSError) -> UsageError:
    return UsageError(
        f"{folder} cannot be written ({error.strerror}): name another folder with --cache"
    )
