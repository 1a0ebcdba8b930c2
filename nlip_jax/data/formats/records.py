"""Records of ArrayRecord files: how `prepare` writes them, and how all kinds are read."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import msgpack

from nlip_jax.data.formats.captions import clean
from nlip_jax.data.formats.texts import Texts, read_texts
from nlip_jax.data.formats.tf_example import is_example, parse_example

# The fields that `encode_record` writes.
IMAGE, CAPTIONS, KEY = "image", "captions", "key"

_PICKLES = tuple(bytes([0x80, protocol]) for protocol in range(2, 6))  # how a pickle begins


def encode_record(
    image: bytes, captions: Iterable[str], key: str, extra: Mapping[str, Any] | None = None
) -> bytes:
    """A record with one image, as a msgpack map.

    Args:
      image: the image file.
      captions: of it; cleaned once more, so that every reader finds the same.
      key: name of the sample, for messages.
      extra: more fields, of what msgpack knows.

    Raises:
      ValueError: `extra` has a field of this record's own, or something msgpack does not know.
    """
    record = {KEY: "".join(clean([key])), CAPTIONS: clean(captions), IMAGE: bytes(image)}
    if extra and not record.keys().isdisjoint(extra):
        raise ValueError(f"extra fields {sorted(extra)}: {', '.join(record)} are taken")
    try:
        return msgpack.packb({**record, **(extra or {})})
    except TypeError as error:
        raise ValueError(f"extra fields {sorted(extra or {})}: {error}") from error


def decode_record(data: bytes) -> dict[str, Any]:
    """The fields of a record: a msgpack map, or the bytes features of a `tf.train.Example`.

    Args:
      data: the record.

    Returns:
      Values by name. What is one value in a msgpack map is a list with one in an Example.

    Raises:
      ValueError: neither of the two.
    """
    if is_example(data):
        return parse_example(data)
    if data.startswith(_PICKLES) and data.endswith(b"."):
        raise ValueError(
            "a pickle, which could run any code when it is read: write msgpack maps or "
            "tf.train.Examples"
        )
    try:
        record = msgpack.unpackb(data)
    except (ValueError, msgpack.UnpackException) as error:
        raise ValueError(f"neither a msgpack map nor a tf.train.Example ({error})") from error
    if not isinstance(record, dict):
        raise ValueError(f"a msgpack {type(record).__name__}, not a map")
    return record


@dataclass(frozen=True)
class Record:
    """What a record says of one image.

    Attributes:
      fields: names of all its fields.
      image: the image file; empty if there is none.
      texts: its captions.
      key: name of the sample; empty if it has none.
    """

    fields: tuple[str, ...]
    image: bytes
    texts: Texts
    key: str

    @classmethod
    def of(
        cls, record: Mapping[str, Any], *, image: str, captions: Sequence[str], key: str
    ) -> "Record":
        """Takes a decoded record apart.

        Args:
          record: see `decode_record`.
          image: name of the field with the image file.
          captions: names of the fields with captions, in fallback order.
          key: name of the field with the name of the sample.
        """
        keys = read_texts({key: record.get(key)}).chosen
        return cls(
            fields=tuple(record),
            image=_only_bytes(record.get(image)),
            texts=read_texts({name: record.get(name) for name in captions}),
            key=keys[0] if keys else "",
        )


def _only_bytes(value: object) -> bytes:
    values = value if isinstance(value, list) else [value]
    return values[0] if len(values) == 1 and isinstance(values[0], bytes) else b""
