"""What keeps captions from repeating themselves, for every way to decode them."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

from nlip_jax.errors import UsageError
from nlip_jax.types import Array


@dataclasses.dataclass(frozen=True, kw_only=True)
class Controls:
    """Which tokens may follow a row; the defaults let all.

    Attributes:
      repetition_penalty: multiplies the log-probability of every token that stands in the row, its
        prompt included (CTRL, arXiv 1909.05858, section 4.1, on log-probabilities, which are never
        positive); above 1 makes it less likely.
      no_repeat_ngram: tokens in a row that never come twice, [bos] and prompt among them; 0: they
        may.
      forbidden: ids that never come.

    Raises:
      UsageError: on construction, for values without a meaning.
    """

    repetition_penalty: float = 1.0
    no_repeat_ngram: int = 0
    forbidden: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        if not self.repetition_penalty > 0:
            raise UsageError(
                f"repetition_penalty={self.repetition_penalty} must be above 0; 1 is no penalty"
            )
        if self.no_repeat_ngram < 0:
            raise UsageError(
                f"no_repeat_ngram={self.no_repeat_ngram} is a number of tokens; 0 lets all repeat"
            )

    @property
    def penalises(self) -> bool:
        """Whether log-probabilities have to be normalised."""
        return self.repetition_penalty != 1


NO_CONTROLS = Controls()


def control(controls: Controls, log_probs: Array, tokens: Array, length: Array) -> Array:
    """Log-probabilities of the next token as the controls leave them; they need not sum to one.

    Args:
      controls: what holds.
      log_probs: `[r, v]` float32; without a penalty up to a constant for each row.
      tokens: `[r, l]` int32 rows so far.
      length: () int32, how many tokens of each row are there.

    Returns:
      `[r, v]` float32; -inf for tokens that may not follow.
    """
    if controls.penalises:
        seen = _mark(tokens, jnp.arange(tokens.shape[1]) < length, log_probs.shape[1])
        log_probs = jnp.where(seen, log_probs * controls.repetition_penalty, log_probs)
    if controls.no_repeat_ngram:
        ends = _repeated_ends(tokens, length, size=controls.no_repeat_ngram)
        log_probs = jnp.where(_mark(tokens, ends, log_probs.shape[1]), -jnp.inf, log_probs)
    if controls.forbidden:
        # By a mask: small, and part of what comes next, where a scatter would copy all.
        is_forbidden = np.isin(np.arange(log_probs.shape[1]), controls.forbidden)
        log_probs = jnp.where(is_forbidden, -jnp.inf, log_probs)
    return log_probs


def _repeated_ends(tokens: Array, length: Array, *, size: int) -> Array:
    """Where an n-gram ends that would repeat if its last token followed: [r, l] bool."""
    row_length = tokens.shape[1]
    place = jnp.arange(row_length)
    # An n-gram has a last token that is there, and as many before it as it needs.
    found = jnp.broadcast_to((place < length) & (place >= size - 1), tokens.shape)
    for back in range(1, min(size, row_length)):
        of_row = jax.lax.dynamic_slice_in_dim(tokens, length - back, 1, axis=1)
        found &= jnp.roll(tokens, back, axis=1) == of_row
    return found & (length >= size)


def _mark(tokens: Array, where: Array, vocab_size: int) -> Array:
    """Which ids stand at places of their row: [r, l] and [r, l] or [l] bool to [r, v] bool."""

    def one(row: Array, where: Array) -> Array:
        ids = jnp.where(where, row, vocab_size)
        return jnp.zeros(vocab_size, bool).at[ids].set(True, mode="drop")

    return jax.vmap(one)(tokens, jnp.broadcast_to(where, tokens.shape))
