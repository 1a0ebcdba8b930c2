"""How the captions of one tar member are read: the index and the reader must agree on the list."""

import json

from nlip_jax.errors import UsageError


class MissingField(ValueError):
    """A JSON member without the caption field."""


def caption_member(caption_key: str) -> tuple[str, str | None]:
    """Splits a caption key into the member that holds the captions and the field in it.

    Args:
      caption_key: "txt" (the whole text of KEY.txt) or "json:FIELD" (a string or a list of
        strings in KEY.json).

    Returns:
      The member's extension, and the field or None for text.

    Raises:
      UsageError: the key is neither.
    """
    extension, _, field = caption_key.partition(":")
    if caption_key != "txt" and not (extension == "json" and field):
        raise UsageError(
            f"caption_key={caption_key!r}: must be 'txt' or 'json:FIELD', such as 'json:captions'"
        )
    return extension, field or None


def parse_captions(payload: bytes, field: str | None) -> list[str]:
    """Reads every caption of a member, without the blank ones.

    Args:
      payload: the bytes of a .txt member (`field` None) or of a .json member.
      field: name of the JSON field.

    Returns:
      Captions, stripped, in their order; perhaps none.

    Raises:
      MissingField: the JSON object has no such field, or null in it.
      ValueError: no UTF-8, no JSON object, or the field holds no text.
    """
    text = payload.decode("utf-8-sig")
    captions = [text] if field is None else _json_captions(text, field)
    # JSON can spell half a surrogate pair, which no tokenizer accepts.
    captions = [c if c.isascii() else c.encode("utf-8", "replace").decode() for c in captions]
    return [stripped for caption in captions if (stripped := caption.strip())]


def _json_captions(text: str, field: str) -> list[str]:
    try:
        record = json.loads(text)
    except RecursionError as error:
        raise ValueError("JSON nested too deeply") from error
    if not isinstance(record, dict):
        raise ValueError(f"a JSON {type(record).__name__} has no fields")
    value = record.get(field)
    if value is None:
        raise MissingField(f"no field {field!r}")
    captions = [value] if isinstance(value, str) else value
    if not isinstance(captions, list) or not all(isinstance(c, str) for c in captions):
        raise ValueError(f"field {field!r} is neither a string nor a list of strings")
    return captions
