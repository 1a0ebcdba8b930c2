"""The blocks of a config that describe data sets: what they must hold, and nothing else."""

import difflib

from ml_collections import ConfigDict

from nlip_jax.errors import UsageError

_INDEXED = ("shards", "captions", "caption_probabilities", "index", "num_images")

# The fields of a block, by `source`; those of a mixture are its parts.
FIELDS: dict[str, tuple[str, ...]] = {
    "synthetic": (
        *("num_examples", "split", "seed", "image_size"),
        *("mismatched", "incomplete", "irrelevant"),
    ),
    "tar": (*_INDEXED, "caption_key"),
    "array_record": (*_INDEXED, "image_key", "caption_key", "sample_key"),
    "parquet": (*_INDEXED, "image_column", "caption_column", "root"),
    "table": (*_INDEXED, "image_column", "caption_column", "separator", "root"),
    "folder": (*_INDEXED, "root", "splits", "language"),
    "lines": (*_INDEXED, "images", "root"),
    "labelled": (*_INDEXED, "template", "class_names"),
    "labelled_folder": (*_INDEXED, "template"),
    "tfds": ("name", "split", "data_dir", "image_key", "caption_key", "captions"),
}

# The same for labelled sets of evaluators.
CLASS_FIELDS: dict[str, tuple[str, ...]] = {
    "class_scenes": ("images_per_class", "split", "seed", "image_size"),
    "zip": ("path", "class_names", "index"),
    "image_folder": ("root", "class_names", "index"),
    "webdataset": ("root", "split", "index"),
    "tfds": ("name", "split", "data_dir", "image_key", "label_key"),
}


def take_block(spec: ConfigDict, *, field: str) -> ConfigDict:
    """The block of a data set that its `source` names.

    Args:
      spec: has `source` and the block of that name.
      field: dotted name of the spec in the config.

    Raises:
      UsageError: it has no such block, or that lacks a field or has one that nothing reads.
    """
    block = _block(spec, field=field)
    if spec.source in FIELDS:
        maker = f"base.{spec.source}_source()"
        _check_fields(block, FIELDS[spec.source], field=f"{field}.{spec.source}", maker=maker)
    return block


def take_class_block(spec: ConfigDict, *, field: str) -> ConfigDict:
    """The block of a labelled set that its `source` names; as `take_block`."""
    block = _block(spec, field=field)
    if spec.source in CLASS_FIELDS:
        maker = "its function in configs/evaluators.py"
        _check_fields(block, CLASS_FIELDS[spec.source], field=f"{field}.{spec.source}", maker=maker)
    return block


def _block(spec: ConfigDict, *, field: str) -> ConfigDict:
    if spec.source not in spec:
        raise UsageError(f"config.{field}.source={spec.source!r} needs a block of that name")
    return spec[spec.source]


def check_part(part: ConfigDict, *, field: str) -> None:
    """Refuses what is no part of a mixture.

    Args:
      part: what stands under a name of the mixture.
      field: dotted name of it in the config.

    Raises:
      UsageError: it lacks its source or weight, or is a mixture itself.
    """
    if not (isinstance(part, ConfigDict) and {"source", "weight"} <= set(part)):
        raise UsageError(
            f"config.{field} is no part of a mixture: make it with "
            "base.mixture_part(SOURCE, SPEC, weight=1.0)"
        )
    if not isinstance(part.weight, int | float):
        raise UsageError(f"config.{field}.weight={part.weight!r}: must be a number")
    if part.source == "mixture":
        raise UsageError(
            f"config.{field}: a mixture cannot be part of a mixture; list its parts instead"
        )


def _check_fields(
    block: ConfigDict, known: tuple[str, ...], *, field: str, maker: str
) -> None:
    for name in block:
        if name not in known:
            close = difflib.get_close_matches(name, known, n=1)
            hint = f"did you mean {close[0]}?" if close else f"it has {', '.join(known)}"
            raise UsageError(f"no such config field: config.{field}.{name}; {hint}")
    for name in known:
        if name not in block:
            raise UsageError(f"config.{field} lacks {name}: begin with {maker}")
