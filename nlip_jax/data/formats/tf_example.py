"""Reads `tf.train.Example` protos without TensorFlow."""

from collections.abc import Mapping
from functools import cache
from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from google.protobuf.message import DecodeError

_FIRST_BYTE = b"\x0a"  # field 1 of `Example`, its only one, with a length
_PACKAGE = "nlip_jax.tf_example"


def is_example(data: bytes) -> bool:
    """Whether a record looks like an `Example`."""
    return data.startswith(_FIRST_BYTE)


def parse_example(data: bytes) -> dict[str, list[bytes]]:
    """The features of an `Example` that hold bytes; numbers are left out.

    Args:
      data: a serialized `tf.train.Example`.

    Raises:
      ValueError: it is none.
    """
    return {
        name: list(feature.bytes_list.value)
        for name, feature in _features(data).items()
        if feature.HasField("bytes_list")
    }


def parse_integers(data: bytes) -> dict[str, list[int]]:
    """The features of an `Example` that hold integers.

    Args:
      data: a serialized `tf.train.Example`.

    Raises:
      ValueError: it is none.
    """
    return {
        name: list(feature.int64_list.value)
        for name, feature in _features(data).items()
        if feature.HasField("int64_list")
    }


def _features(data: bytes) -> Mapping[str, Any]:
    try:
        return _message_class().FromString(data).features.feature
    except DecodeError as error:
        raise ValueError(f"no tf.train.Example: {error}") from error


@cache
def _message_class() -> Any:
    """The message class, in a pool of its own: TensorFlow and TFDS have others of that name.

    The layout is that of tensorflow/core/example/{example,feature}.proto, without the lists of
    floats, which are skipped as unknown fields.
    """
    field = descriptor_pb2.FieldDescriptorProto

    def message(name: str, *fields: Any, **more: Any) -> Any:
        return descriptor_pb2.DescriptorProto(name=name, field=fields, **more)

    def one(name: str, number: int, message_type: str) -> Any:
        return field(
            name=name,
            number=number,
            label=field.LABEL_OPTIONAL,
            type=field.TYPE_MESSAGE,
            type_name=f".{_PACKAGE}.{message_type}",
        )

    value = field(name="value", number=1, label=field.LABEL_REPEATED, type=field.TYPE_BYTES)
    integer = field(name="value", number=1, label=field.LABEL_REPEATED, type=field.TYPE_INT64)
    integer.options.packed = True
    key = field(name="key", number=1, label=field.LABEL_OPTIONAL, type=field.TYPE_STRING)
    entry = message("FeatureEntry", key, one("value", 2, "Feature"), options={"map_entry": True})
    feature = one("feature", 1, "Features.FeatureEntry")
    feature.label = field.LABEL_REPEATED
    file = descriptor_pb2.FileDescriptorProto(
        name=f"{_PACKAGE}.proto",
        package=_PACKAGE,
        message_type=[
            message("BytesList", value),
            message("Int64List", integer),
            message(
                "Feature",
                one("bytes_list", 1, "BytesList"),
                one("int64_list", 3, "Int64List"),
            ),
            message("Features", feature, nested_type=[entry]),
            message("Example", one("features", 1, "Features")),
        ],
    )
    pool = descriptor_pool.DescriptorPool()
    pool.AddSerializedFile(file.SerializeToString())
    return message_factory.GetMessageClass(pool.FindMessageTypeByName(f"{_PACKAGE}.Example"))
