"""Captions as the web has them: words, with file names, sizes, dates and addresses among them."""

import functools
import re

# What a word is made of; apostrophes are cut off before.
_WORD = re.compile(r"[a-z]+(?:-[a-z]+)*")
_LONGEST = 30  # letters of a word; what is longer is code
_POSSESSIVE = re.compile(r"['\u2019]s?(?![a-z])")
# A file name, an address, a path, a handle, code: not one word of it tells of the image.
_NOT_TEXT = re.compile(
    r"\d|://|^www\.|[@_\\=<>{}~]|\.(?:[a-z]{2,4})$|^[a-z]+(?:\.[a-z]+)+$|/.*/|&\w+;"
)

BREAK = ","  # stands between words that belong to different phrases
END = "."  # likewise, at the end of a sentence
OWNER = "'s"  # after a word: the next one begins a phrase


@functools.lru_cache(1 << 16)
def split_chunk(chunk: str) -> tuple[str, ...]:
    """The words of what stands between two spaces, and the breaks between and around them.

    Args:
      chunk: lower case.

    Returns:
      Words of letters and hyphens, `BREAK`, `END` and `OWNER`. What has a digit, or looks like a
      file name or an address, is one break.
    """
    if chunk.isalpha() and chunk.isascii():
        return (chunk if 1 < len(chunk) <= _LONGEST or chunk == "a" else BREAK,)
    bare = chunk.strip("\"'`*()[]!?.,;:-\u2019\u201c\u201d\u2026").lstrip("#")
    last = END if chunk[-1] in ".!?" else BREAK
    if _NOT_TEXT.search(bare) or not bare:
        return (last,)
    found = [] if chunk[0] == bare[0] else [BREAK]
    end = 0
    for match in _WORD.finditer(bare):
        found += [BREAK] if found and match.start() > end and found[-1] != OWNER else []
        found.append(match[0] if len(match[0]) <= _LONGEST else BREAK)
        end = match.end()
        if owner := _POSSESSIVE.match(bare, end):
            found.append(OWNER)
            end = owner.end()
    if not found or not chunk.endswith(bare):
        found.append(last)
    return tuple(found)


def clean(caption: str) -> str:
    """The caption with a comma or full stop in place of whatever is no text.

    Args:
      caption: as it is written.
    """
    chunks = ((chunk, split_chunk(chunk.lower())) for chunk in caption.split())
    return " ".join(w[0] if w in ((BREAK,), (END,)) else chunk for chunk, w in chunks)
