"""The blocks of a config that describe data sets: what they must hold, and nothing else."""

import difflib

from ml_collections import ConfigDict

from nlip_jax.errors import UsageError

_INDEXED = ("shards", "captions", "caption_probabilities", "index", "num_images")

# The fields of a block, by `source`; those of a mixture are its parts.
FIELDS: dict[str, tuple[str, ...]] = {
    "synthetic": (
        *("num_examples", "split", "seed", "image_size"),
        *("mismatched", "incomplete", "irrelevant", "independent"),
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

_LABELLED = ("source", "prompts", "templates", "match")
_CAPTIONED = ("source",)

# The fields of an evaluator's spec, by kind; the block that its `source` names comes beside them.
EVALUATOR_FIELDS: dict[str, tuple[str, ...]] = {
    "zero_shot": (*_LABELLED, "ensemble", "metric"),
    "retrieval": (*_CAPTIONED, "languages", "image_to_text", "text_to_image", "examples"),
    "linear_probe": ("train", "test", "features", "protocol", "lbfgs", "sgd"),
    "few_shot": (
        *("train", "test", "features", "num_shots", "num_seeds", "seed"),
        *("regularisation", "tolerance", "max_iterations"),
    ),
    "knn": ("train", "test", "features", "num_neighbours", "temperature"),
    "clustering": (
        *(*_LABELLED, "features"),
        *("num_iterations", "num_restarts", "init", "seed"),
    ),
    "geometry": _CAPTIONED,
    "caption": (*_CAPTIONED, "predictions", "image_ids", "metrics", "prompt", "examples"),
    "pair_choice": ("files", "root", "extension", "examples"),
    "judgement": ("captions", "root", "splits", "ratings", "retrieval", "rounds", "seed"),
}

# The same for the blocks inside of some of them.
PART_FIELDS: dict[tuple[str, str], tuple[str, ...]] = {
    ("retrieval", "image_to_text"): ("prefix", "suffix"),
    ("retrieval", "text_to_image"): ("prefix", "suffix"),
    ("linear_probe", "lbfgs"): (
        *("regularisation", "validation_share", "seed"),
        *("tolerance", "max_iterations"),
    ),
    ("linear_probe", "sgd"): (
        *("learning_rate", "momentum", "weight_decay"),
        *("batch_size", "epochs", "seed"),
    ),
    **{
        (kind, name): _LABELLED
        for kind in ("linear_probe", "few_shot", "knn")
        for name in ("train", "test")
    },
}


def check_evaluator(spec: ConfigDict, *, kind: str, field: str) -> None:
    """Refuses fields of an evaluator's spec that nothing reads, and specs that lack some.

    Args:
      spec: of one set.
      kind: of evaluator; one that is not known may have any fields.
      field: dotted name of the spec in the config.

    Raises:
      UsageError: naming the field and what there is.
    """
    if kind not in EVALUATOR_FIELDS:
        return
    maker = f"evaluators.{kind}(...) of configs/evaluators.py"
    _check_spec(spec, EVALUATOR_FIELDS[kind], field=field, maker=maker)
    for (owner, name), known in PART_FIELDS.items():
        if owner == kind:
            _check_spec(spec[name], known, field=f"{field}.{name}", maker=maker)


def _check_spec(spec: object, known: tuple[str, ...], *, field: str, maker: str) -> None:
    if not isinstance(spec, ConfigDict):
        raise UsageError(f"config.{field}={spec!r} is no block of fields: begin with {maker}")
    own_block = (spec.get("source"),) if "source" in known and spec.get("source") in spec else ()
    _check_fields(spec, (*known, *own_block), field=field, maker=maker)


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
