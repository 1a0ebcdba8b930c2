"""One description for all ways to decode captions."""

import dataclasses
from collections.abc import Callable

import jax.numpy as jnp

from nlip_jax.errors import UsageError
from nlip_jax.models.decoding.beam import beam_search
from nlip_jax.models.decoding.controls import Controls
from nlip_jax.models.decoding.sampling import sample
from nlip_jax.models.decoding.step import Decoded, Step, normalised, repeat_rows
from nlip_jax.models.dropout import fold
from nlip_jax.types import Array, PyTree


@dataclasses.dataclass(frozen=True, kw_only=True)
class Decoding:
    """How captions are read off a decoder.

    Attributes:
      kind: a key of `KINDS`, which says what else is read: greedy takes the likeliest token at
        every place; sample draws from all, top_k and nucleus from the likeliest; beam searches.
      top_p: nucleus: sum of the probabilities that are drawn from.
      top_k: top_k: tokens that are drawn from.
      temperature: sample, top_k, nucleus: divides log-probabilities.
      beams: beam: kept for each image.
      length_penalty: beam: above 0 favours longer captions.
      min_length: pieces of a caption, without [bos], prompt and [eos].
      max_length: the same; captions are cut there, and have no [eos] then.
      repetition_penalty: see `Controls`.
      no_repeat_ngram: see `Controls`.
      candidates: captions an image; more than one only where they are drawn.

    Raises:
      UsageError: on construction, for values that say nothing or do not go together.
    """

    kind: str = "nucleus"
    top_p: float = 0.9
    top_k: int = 50
    temperature: float = 1.0
    beams: int = 3
    length_penalty: float = 1.0
    min_length: int = 5
    max_length: int = 20
    repetition_penalty: float = 1.0
    no_repeat_ngram: int = 0
    candidates: int = 1

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise UsageError(f"decoding={self.kind!r} is not one of {', '.join(KINDS)}")
        draws = KINDS[self.kind].draws
        if not 0 <= self.min_length <= self.max_length or self.max_length < 1:
            raise UsageError(
                f"min_length={self.min_length} and max_length={self.max_length} must be in this "
                "order, the first 0 or more, the second 1 or more"
            )
        if self.candidates < 1 or (self.candidates > 1 and not draws):
            drawing = ", ".join(name for name, kind in KINDS.items() if kind.draws)
            raise UsageError(
                f"candidates={self.candidates} with decoding={self.kind}: must be 1; more only "
                f"with what draws: {drawing}"
            )
        if draws and not self.temperature > 0:
            raise UsageError(
                f"temperature={self.temperature} with decoding={self.kind} must be above 0; for "
                "the likeliest tokens take greedy"
            )
        if self.kind == "top_k" and self.top_k < 1:
            raise UsageError(f"top_k={self.top_k} must be 1 or more; to draw from all take sample")

    def controls(self, *, forbidden: tuple[int, ...]) -> Controls:
        """What keeps tokens from following."""
        return Controls(
            repetition_penalty=self.repetition_penalty,
            no_repeat_ngram=self.no_repeat_ngram,
            forbidden=forbidden,
        )


def _greedy(settings: Decoding, step: Step, cache: PyTree, **rows) -> Decoded:
    return sample(step, cache, temperature=0.0, **rows)


def _sample(settings: Decoding, step: Step, cache: PyTree, **rows) -> Decoded:
    return sample(step, cache, temperature=settings.temperature, **rows)


def _top_k(settings: Decoding, step: Step, cache: PyTree, **rows) -> Decoded:
    return sample(step, cache, temperature=settings.temperature, top_k=settings.top_k, **rows)


def _nucleus(settings: Decoding, step: Step, cache: PyTree, **rows) -> Decoded:
    return sample(step, cache, temperature=settings.temperature, top_p=settings.top_p, **rows)


def _beam(settings: Decoding, step: Step, cache: PyTree, *, keys: None, **rows) -> Decoded:
    return beam_search(
        normalised(step),
        repeat_rows(cache, settings.beams),
        beams=settings.beams,
        length_penalty=settings.length_penalty,
        **rows,
    )


@dataclasses.dataclass(frozen=True)
class Kind:
    """A way to decode.

    Attributes:
      run: (settings, step, cache, and the keywords of `sample` about rows) -> captions.
      draws: whether another key gives another caption.
    """

    run: Callable[..., Decoded]
    draws: bool


KINDS = {
    "greedy": Kind(_greedy, draws=False),
    "sample": Kind(_sample, draws=True),
    "top_k": Kind(_top_k, draws=True),
    "nucleus": Kind(_nucleus, draws=True),
    "beam": Kind(_beam, draws=False),
}


def decode(
    settings: Decoding,
    step: Step,
    cache: PyTree,
    *,
    batch_size: int,
    keys: Array | None,
    bos: int,
    eos: int,
    pad: int,
    prompt: Array | tuple[int, ...] = (),
    forbidden: tuple[int, ...] = (),
) -> Decoded:
    """Makes captions of images; to be called inside of a compiled function.

    Args:
      settings: how.
      step: the decoder; gives logits or log-probabilities. Beams and candidates of an image stand
        side by side in its rows, so it may close over what they share.
      cache: before the first token; every array has rows `[b, ...]`.
      batch_size: images, b.
      keys: `[b]`, one random key an image, used for nothing else; None where nothing is drawn.
      bos: first token.
      eos: ends a caption.
      pad: fills up rows.
      prompt: `[p]` or `[b, p]` tokens that captions begin with, behind [bos].
      forbidden: ids beside bos and pad that never come, such as those of masks.

    Returns:
      Captions `[b, n, l]` and scores `[b, n]`, where n is settings.candidates and l is 1 + p +
      settings.max_length. Each candidate has random numbers of its own, however many there are.

    Raises:
      UsageError: numbers that do not go together.
    """
    count = settings.candidates
    prompt = jnp.asarray(prompt, jnp.int32)
    if prompt.ndim == 2:
        prompt = repeat_rows(prompt, count)
    draws = KINDS[settings.kind].draws
    if draws and keys is not None:
        keys = jnp.stack([fold(keys, number) for number in range(count)], axis=1).reshape(-1)
    given = 1 + prompt.shape[-1]
    found = KINDS[settings.kind].run(
        settings,
        step,
        repeat_rows(cache, count),
        batch_size=batch_size * count,
        keys=keys if draws else None,
        max_length=given + settings.max_length,
        min_length=given + settings.min_length,
        bos=bos,
        eos=eos,
        pad=pad,
        prompt=prompt,
        controls=settings.controls(forbidden=(bos, pad, *forbidden)),
    )
    return Decoded(
        tokens=found.tokens.reshape(batch_size, count, -1),
        scores=found.scores.reshape(batch_size, count),
    )
