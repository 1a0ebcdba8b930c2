"""Captions of images by a four-part model, with or without concepts."""

import dataclasses
from typing import Any

import jax.numpy as jnp

from nlip_jax.methods.base import scale_image
from nlip_jax.methods.similarities import FeatureSimilarity
from nlip_jax.models.decoding.decoding import Decoding, decode
from nlip_jax.models.decoding.step import repeat_rows
from nlip_jax.types import Array, PyTree


@dataclasses.dataclass(frozen=True, kw_only=True)
class Captioner:
    """Makes captions; pure, to be called inside of a compiled function.

    Attributes:
      model: a `FourPart`.
      similarity: that chooses among several candidates.
      decoding: how captions are read off the model.
      bos: first token of a row.
      eos: ends a caption.
      prompt: tokens that captions begin with; taken off again.
      forbidden: tokens that no caption has, such as a mask.
      min_confidence: captions whose tokens have a lower probability, in the geometric mean, are
        left out.
      context_length: tokens of a row, `l`.
    """

    model: Any
    similarity: FeatureSimilarity
    decoding: Decoding
    bos: int
    eos: int
    prompt: tuple[int, ...]
    context_length: int
    forbidden: tuple[int, ...] = ()
    min_confidence: float = 0.0

    def __call__(
        self, variables: PyTree, image: Array, concept_tokens: Array | None, keys: Array
    ) -> Array:
        """A caption for each image.

        Args:
          variables: of the model.
          image: `[b, h, w, 3]` uint8.
          concept_tokens: `[b, c]` int32; None: without concepts.
          keys: `[b]`, of the sampling.

        Returns:
          `[b, l]` int32: [bos], caption, [eos], padding; padding alone where no caption is sure
          enough.
        """
        features = self._apply(variables, scale_image(image), None, method="encode_masked_image")
        cache = self._apply(
            variables,
            *(features["image_memory"], concept_tokens),
            length=len(self.prompt) + self.decoding.max_length,  # [bos] is read, the last is not
            method="start_caption",
        )

        # Beams and candidates of an image share its memory; only their past is each one's own.
        def step(past: PyTree, tokens: Array, position: Array) -> tuple[Array, PyTree]:
            logits, after = self._apply(
                variables, {**cache, "past": past}, tokens, position, method="caption_step"
            )
            return logits, after["past"]

        found = decode(
            self.decoding,
            *(step, cache["past"]),
            batch_size=len(image),
            keys=keys,
            bos=self.bos,
            eos=self.eos,
            pad=0,
            prompt=self.prompt,
            forbidden=self.forbidden,
        )
        count, length = found.tokens.shape[1:]
        rows = self._strip(found.tokens.reshape(-1, length))
        rows = rows.reshape(-1, count, self.context_length)
        if self.min_confidence:  # or the compiler leaves the scores out
            is_sure = jnp.exp(found.scores) >= self.min_confidence
            rows = jnp.where(is_sure[..., None], rows, 0)
        return rows[:, 0] if count == 1 else self._best(variables, features, rows)

    def _apply(self, variables: PyTree, *args: Any, method: str, **options: Any) -> Any:
        return self.model.apply(variables, *args, method=method, **options)

    def _strip(self, rows: Array) -> Array:
        """Takes the prompt off, ends captions that were cut, and fills up to whole rows."""
        rows = jnp.concatenate([rows[:, :1], rows[:, 1 + len(self.prompt) :]], axis=1)
        rows = jnp.pad(rows, [(0, 0), (0, 1)])
        ended = jnp.any(rows == self.eos, axis=1)
        length = jnp.sum(rows != 0, axis=1)
        at_end = jnp.arange(rows.shape[1]) == length[:, None]
        rows = jnp.where(at_end & ~ended[:, None], self.eos, rows)
        return jnp.pad(rows, [(0, 0), (0, self.context_length - rows.shape[1])])

    def _best(self, variables: PyTree, images: PyTree, rows: Array) -> Array:
        """The candidate that matches its image best: `[b, n, l]` to `[b, l]`."""
        batch_size, count, length = rows.shape
        texts = self._apply(variables, rows.reshape(-1, length), method="encode_text")
        images = {
            name: repeat_rows(value, count)
            for name, value in images.items()
            if name.startswith("image_") and name != "image_memory"
        }
        scores = self.similarity.score_pairs(images, texts).reshape(batch_size, count)
        is_there = rows[..., 0] != 0
        best = jnp.argmax(jnp.where(is_there, scores, -jnp.inf), axis=1)
        return jnp.take_along_axis(rows, best[:, None, None], axis=1)[:, 0]
