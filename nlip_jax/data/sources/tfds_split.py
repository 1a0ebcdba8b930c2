"""A split of a TFDS data set that was prepared as ArrayRecord."""

import bisect
from collections.abc import Callable, Mapping
from itertools import accumulate
from typing import Any, TypeVar

import numpy as np

from nlip_jax.data.failures import ReadError
from nlip_jax.data.formats.tf_example import parse_example, parse_integers
from nlip_jax.data.source import Place
from nlip_jax.errors import UsageError

_Parsed = TypeVar("_Parsed")


class TfdsSplit:
    """The records of a split; threads may share it.

    It holds nothing of TFDS, so that worker processes need not import that.

    Args:
      name: such as "coco_captions" or "coco_captions/2014:1.1.0".
      split: such as "train", "train[:1000]" or "train+validation".
      data_dir: folder of prepared data sets; empty takes TFDS's own default.

    Attributes:
      name: with configuration and version.
      shapes: by the name of every feature of bytes or texts its shape, with None for a length that
        varies; "/" leads into nested features.
      class_names: by the name of every feature that is a class label its names, in the order of
        the labels; empty for one that has none.
      identity: what is the same for copies of the same data, as plain values.

    Raises:
      UsageError: there is no such data set or split, or it is not there as ArrayRecord.
    """

    def __init__(self, name: str, split: str, data_dir: str) -> None:
        builder = _find_builder(name, data_dir)
        self.name = builder.info.full_name
        self.shapes = _byte_shapes(builder.info.features.get_serialized_info())
        self.class_names = _class_names(builder.info.features)
        self._records = _open(builder, split, name, data_dir)
        files = builder.info.splits[split].file_instructions
        self._paths = tuple(file.filename for file in files)
        self._skips = tuple(file.skip for file in files)
        self._starts = (0, *accumulate(file.take for file in files))
        parts = [(_size(f.filename), f.skip, f.take, f.examples_in_shard) for f in files]
        self.identity = [self.name, split, parts]

    def __len__(self) -> int:
        return self._starts[-1]

    def features(self, number: int) -> dict[str, list[bytes]]:
        """The features of a record that hold bytes.

        Raises:
          ReadError: it cannot be read.
        """
        return self._read(number, parse_example)

    def integers(self, number: int) -> dict[str, list[int]]:
        """The features of a record that hold integers.

        Raises:
          ReadError: it cannot be read.
        """
        return self._read(number, parse_integers)

    def _read(self, number: int, parse: Callable[[bytes], _Parsed]) -> _Parsed:
        try:
            return parse(self._records[number])
        except (RuntimeError, ValueError) as error:
            raise ReadError("shard_unreadable", f"the record cannot be read ({error})") from error

    def image(self, number: int, key: str) -> bytes:
        """The image file in a feature of a record.

        Raises:
          ReadError: the record cannot be read, or has no image.
        """
        image = b"".join(self.features(number).get(key, []))
        if not image:
            raise ReadError("empty_image", f"nothing in feature {key!r}")
        return image

    def place(self, number: int) -> Place:
        """File of a record, and its number there."""
        file = bisect.bisect_right(self._starts, number) - 1
        return Place(self._paths[file], f"record {self._skips[file] + number - self._starts[file]}")


def _find_builder(name: str, data_dir: str) -> Any:
    # Made from the files: the code of a data set, which `tfds.data_source` prefers, needs
    # TensorFlow. Imported here because it takes a while.
    from tensorflow_datasets.core.read_only_builder import builder_from_files  # noqa: PLC0415

    try:
        return builder_from_files(name, **({"data_dir": data_dir} if data_dir else {}))
    except (ValueError, OSError) as error:
        where = data_dir or "TFDS's default folder"
        raise UsageError(
            f"TFDS finds no data set {name!r} in {where}: {_first_line(error)}; "
            f"{_how_to_prepare(name, data_dir)}"
        ) from error


def _open(builder: Any, split: str, name: str, data_dir: str) -> Any:
    """What `tfds.data_source` reads records from, before it decodes anything."""
    from tensorflow_datasets import decode  # noqa: PLC0415

    raw = decode.DeserializeMethod.RAW_BYTES
    try:
        source = builder.as_data_source(split, deserialize_method=raw, file_format="array_record")
    except ValueError as error:
        splits = ", ".join(builder.info.splits)
        raise UsageError(
            f"TFDS data set {name!r}, split {split!r}: {_first_line(error)}; it has {splits}"
        ) from error
    except NotImplementedError as error:
        raise UsageError(
            f"TFDS data set {name!r} is there in the format {builder.info.file_format.value}; "
            f"{_how_to_prepare(name, data_dir)}"
        ) from error
    return source.data_source


def _how_to_prepare(name: str, data_dir: str) -> str:
    where = f", data_dir={data_dir!r}" if data_dir else ""
    return (
        'prepare it where TensorFlow is installed: python -c "import tensorflow_datasets as tfds; '
        f"tfds.builder({name!r}{where}, file_format='array_record').download_and_prepare()\""
    )


def _size(path: str) -> int:
    from etils import epath  # noqa: PLC0415  it knows the places that TFDS knows

    try:
        return epath.Path(path).stat().length
    except OSError as error:
        raise UsageError(f"a file of the TFDS data set is not there: {path} ({error})") from error


def _byte_shapes(infos: Mapping[str, Any], prefix: str = "") -> dict[str, tuple[int | None, ...]]:
    shapes = {}
    for name, info in infos.items():
        if isinstance(info, Mapping):
            shapes |= _byte_shapes(info, f"{prefix}{name}/")
        elif np.dtype(info.np_dtype).kind == "O":
            shapes[prefix + name] = tuple(info.shape)
    return shapes


def _class_names(features: Any, prefix: str = "") -> dict[str, tuple[str, ...]]:
    names = {}
    for name, feature in features.items() if hasattr(features, "items") else ():
        if hasattr(feature, "int2str"):  # a ClassLabel; it may know nothing but their number
            known = feature.names if feature.num_classes else []
            are_numbers = known == [str(number) for number in range(len(known))]
            names[prefix + name] = () if are_numbers else tuple(known)
        names |= _class_names(feature, f"{prefix}{name}/")
    return names


def _first_line(error: Exception) -> str:
    return str(error).split("\n", 1)[0]
