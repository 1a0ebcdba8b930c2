"""What becomes of several captions of one image, for sources of real data."""

import hashlib

from nlip_jax.errors import UsageError

# expand: every caption makes an example, those of an image beside one another; sample: every image
# makes an example and draws one of its captions anew every epoch.
CAPTION_MODES = ("expand", "sample")


def check_caption_mode(captions: str) -> None:
    """Refuses a mode that does not exist; raises UsageError."""
    if captions not in CAPTION_MODES:
        raise UsageError(f"captions={captions!r}: must be one of {', '.join(CAPTION_MODES)}")


def draw(*key: int) -> tuple[float, float]:
    """Two numbers from [0, 1), decided by the key alone."""
    digest = hashlib.blake2b(repr(key).encode(), digest_size=16).digest()
    # 53 bits: a float holds them exactly, so that the result stays below 1.
    first, second = (int.from_bytes(half, "big") >> 11 for half in (digest[:8], digest[8:]))
    return first / (1 << 53), second / (1 << 53)
