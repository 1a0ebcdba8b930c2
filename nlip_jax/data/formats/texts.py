"""Captions as tables and records hold them: a text, a list of texts, or nothing."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from nlip_jax.data.formats.captions import clean
from nlip_jax.errors import UsageError

# Names in `COUNTS`: what is there and cannot be used says more than what is not there.
_PROBLEMS = ("unreadable_caption", "blank_caption", "without_caption")


@dataclass(frozen=True)
class Texts:
    """The captions of one image.

    Attributes:
      by_key: captions for every caption key in turn, stripped, without blank ones.
      problem: where there are none at all, the name in `COUNTS` of why; empty otherwise.
      complaint: the same in words.
    """

    by_key: list[list[str]]
    problem: str = ""
    complaint: str = ""

    @property
    def chosen(self) -> list[str]:
        """The captions of the first key that has any."""
        return next(filter(None, self.by_key), [])


def check_caption_keys(keys: Sequence[str]) -> None:
    """Refuses caption keys of which there are none, or one twice; raises UsageError."""
    if not keys or len(set(keys)) < len(keys):
        raise UsageError(f"caption keys {list(keys)}: name one or more, each once")


def read_texts(values: Mapping[str, object]) -> Texts:
    """Reads captions from what stands under the caption keys.

    Args:
      values: by caption key: a text (str, or bytes in UTF-8), a list of texts, None,
        or the ValueError for which it could not be read.
    """
    by_key, problems = [], []
    for key, value in values.items():
        captions = []
        try:
            captions = clean(_strings(value))
            problem = "without_caption" if value is None else "blank_caption"
            why = problem.replace("_", " ")
        except ValueError as error:
            problem, why = "unreadable_caption", str(error)
        by_key.append(captions)
        problems.append((problem, f"{key}: {why}"))
    if any(by_key):
        return Texts(by_key)
    return Texts(by_key, *min(problems, key=lambda found: _PROBLEMS.index(found[0])))


def _strings(value: object) -> list[str]:
    values = value if isinstance(value, list | tuple) else [value]
    return [_string(one) for one in values if one is not None]


def _string(value: object) -> str:
    if isinstance(value, ValueError):
        raise value
    if isinstance(value, bytes):
        return value.decode()
    if not isinstance(value, str):
        raise ValueError(f"a value of type {type(value).__name__} is no text")
    return value
