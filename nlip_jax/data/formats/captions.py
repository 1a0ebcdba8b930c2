"""What every caption goes through before a tokenizer sees it."""

from collections.abc import Iterable


def clean(captions: Iterable[str]) -> list[str]:
    """Captions as tokenizers accept them, stripped, in their order, without blank ones.

    NUL characters become spaces, and half surrogate pairs, which JSON can spell, become "?".
    """
    valid = (c if c.isascii() else c.encode("utf-8", "replace").decode() for c in captions)
    return [stripped for c in valid if (stripped := c.replace("\0", " ").strip())]
