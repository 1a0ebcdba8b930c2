"""Compiled steps that outlive their process, so that a run goes on sooner."""

import contextlib
import os
import zlib
from pathlib import Path

import jax
from jax.experimental.compilation_cache import compilation_cache

from nlip_jax.errors import UsageError

_ZSTANDARD = b"\x28\xb5\x2f\xfd"  # how entries begin where that package is installed
_DIR = "jax_compilation_cache_dir"
# Options of JAX that hold unless the environment says otherwise.
_OPTIONS = {
    # Beside the step there is much that is quick to compile, and adds up.
    "jax_persistent_cache_min_compile_time_secs": 0.1,
    # Caches of XLA's own make the folder's path a part of every entry's key: once moved, or found
    # by another path, it would be of no use.
    "jax_persistent_cache_enable_xla_caches": "none",
}


def use(setting: str, workdir: Path) -> None:
    """Has JAX keep what it compiles from now on, and use what it kept; results stay the same.

    An entry that cannot be read costs a warning of JAX, and is compiled again.

    Args:
      setting: config.compilation_cache: a folder, "none", or "auto": the one that the environment
        names, else one in the workdir.
      workdir: of the run.

    Raises:
      UsageError: the folder cannot be made.
    """
    if not setting:
        raise UsageError("config.compilation_cache='': name a folder, auto or none")
    named = os.environ.get(_DIR.upper()) if setting == "auto" else None
    places = {"auto": workdir / "compilation_cache", "none": None}
    folder = Path(named) if named else places.get(setting, Path(setting).expanduser())
    if folder is not None and not named:
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UsageError(
                f"config.compilation_cache={setting}: {folder} cannot be made ({error.strerror}); "
                "name another folder, auto or none"
            ) from error
    jax.config.update(_DIR, None if folder is None else str(folder))
    compilation_cache.reset_cache()  # an earlier run of this process may have used another folder
    if folder is None or named:
        return
    for name, value in _OPTIONS.items():
        if name.upper() not in os.environ:
            jax.config.update(name, value)
    if jax.process_index() == 0:  # the one that writes
        remove_torn(folder)


def remove_torn(folder: Path) -> None:
    """Removes entries that a killed process wrote half of: JAX would not write them again."""
    for path in folder.glob("*-cache"):
        with contextlib.suppress(FileNotFoundError):  # another run was here first
            if not _is_whole(path):
                path.unlink()


def _is_whole(entry: Path) -> bool:
    with entry.open("rb") as file:
        first = file.read(len(_ZSTANDARD))
        if first == _ZSTANDARD:
            return True  # JAX reads these itself
        try:
            zlib.decompress(first + file.read())
        except zlib.error:
            return False
    return True
