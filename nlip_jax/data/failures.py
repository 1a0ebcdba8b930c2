"""What can be wrong with an example: the kinds of failure that are counted, never crashed on."""

from nlip_jax.errors import RunError

# Kind -> what it means; the names stand in quarantine.jsonl, counters and progress lines.
FAILURES = {
    "shard_unreadable": "the shard cannot be opened or read, after retries",
    "missing_bytes": "the shard ends before the member does",
    "empty_image": "an image of zero bytes",
    "missing_image": "a path that leads to no file",
    "not_an_image": "no JPEG, PNG, WebP, GIF or BMP, whatever its name says",
    "too_many_pixels": "more pixels than the limit, by its header",
    "truncated_image": "the image file ends too early",
    "damaged_image": "the decoder gave up",
    "unreadable_caption": "a caption that is not as it was indexed",
}
KINDS = tuple(FAILURES)


class ReadError(RunError):
    """An image or a caption that cannot be read.

    Args:
      kind: one of `FAILURES`.
      message: what is wrong, without the place; `Source.place` tells where.
    """

    def __init__(self, kind: str, message: str) -> None:
        if kind not in FAILURES:
            raise ValueError(f"{kind!r} is no kind of failure: {', '.join(FAILURES)}")
        super().__init__(message)
        self.kind = kind

    def __reduce__(self):
        return ReadError, (self.kind, str(self))
