"""Which members of a tar hold captions, and what is in them."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from nlip_jax.data.formats.texts import check_caption_keys
from nlip_jax.errors import UsageError

MAX_BYTES = 1 << 24  # of a member with captions; more is no caption


@dataclass(frozen=True)
class CaptionMembers:
    """Where the captions of a sample are, for several keys in fallback order.

    A key is "txt" (the whole text of KEY.txt) or "json:FIELD" (a string or a list of strings in
    KEY.json).

    Attributes:
      fields: by the extension of every member the fields to read; [None] for text.
      keys: every caption key with its extension and the number of its field.
    """

    fields: dict[str, list[str | None]]
    keys: dict[str, tuple[str, int]]

    @classmethod
    def of(cls, caption_keys: Sequence[str]) -> "CaptionMembers":
        """Reads caption keys.

        Raises:
          UsageError: there is none, one stands there twice, or one is neither of the two kinds.
        """
        check_caption_keys(caption_keys)
        fields, keys = {}, {}
        for key in caption_keys:
            extension, _, field = key.partition(":")
            if key != "txt" and not (extension == "json" and field):
                raise UsageError(
                    f"caption key {key!r}: must be 'txt' or 'json:FIELD', such as 'json:captions'"
                )
            known = fields.setdefault(extension, [])
            keys[key] = extension, len(known)
            known.append(field or None)
        return cls(fields, keys)

    def by_key(self, values: dict[str, list[Any]]) -> dict[str, Any]:
        """Values by caption key, given those of the fields by extension; None where it is not."""
        return {
            key: values[extension][number] if extension in values else None
            for key, (extension, number) in self.keys.items()
        }


def field_values(payload: bytes, fields: Sequence[str | None]) -> list[Any]:
    """What the fields of a .txt or .json member hold.

    Args:
      payload: its bytes.
      fields: names of JSON fields; `[None]` for the whole text.

    Returns:
      A value for each field; a ValueError in place of each where the member cannot be read.
    """
    try:
        text = payload.decode("utf-8-sig")
        if list(fields) == [None]:
            return [text]
        record = _json_object(text)
    except ValueError as error:
        return [error] * len(fields)
    return [record.get(field) for field in fields]


def text_fields(payload: bytes) -> list[str]:
    """Names of the fields of a .json member that hold a text or several."""
    try:
        record = _json_object(payload.decode("utf-8-sig"))
    except ValueError:
        return []
    return [name for name, value in record.items() if _is_text(value)]


def _is_text(value: Any) -> bool:
    values = value if value and isinstance(value, list) else [value]
    return all(isinstance(one, str) for one in values)


def _json_object(text: str) -> dict[str, Any]:
    try:
        record = json.loads(text)
    except RecursionError as error:
        raise ValueError("JSON nested too deeply") from error
    if not isinstance(record, dict):
        raise ValueError(f"a JSON {type(record).__name__} has no fields")
    return record
