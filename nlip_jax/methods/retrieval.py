"""Which concepts images show, by the similarity of their features to those of prompted words.

Concepts of an image x are the k words whose features a dual encoder finds most alike (Huang et al.,
AAAI 2023, figure 1): `topk_k sim(f_v(x), f_t(prompt with the word))`. Ids have no gradient, so none
reaches the encoder.
"""

import functools
import math
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Sharding

from nlip_jax.data.concepts.vocabulary import NONE
from nlip_jax.data.text.tokenizer import PAD, Tokenizer
from nlip_jax.losses.sides import Side
from nlip_jax.methods.base import Features
from nlip_jax.methods.similarities import FeatureSimilarity
from nlip_jax.types import Array, PyTree

_MAX_SCORES = 1 << 24  # of the tokens of all images and of the words met at a time: 64 MB
_LEAST_WORDS = 16  # met at a time, however many images there are; devices share the images


def word_rows(words: Sequence[str], *, prompt: str, tokenizer: Tokenizer) -> np.ndarray:
    """The prompted words as texts.

    Args:
      words: `q` of them.
      prompt: with "{}" in place of the word.
      tokenizer: of the encoder that compares.

    Returns:
      `[q, l]` int32 rows of the tokenizer.
    """
    return tokenizer.encode_batch([prompt.replace("{}", word) for word in words])


def embed_words(
    text_features: Callable[[PyTree, Array], Features],
    variables: PyTree,
    rows: np.ndarray,
    *,
    batch: int,
    sharding: Sharding | None = None,
) -> Features:
    """Features of the prompted words, on the devices; compiled once, for parts of one size.

    Args:
      text_features: (variables, tokens [batch, l] int32) -> features [batch, ...].
      variables: of the model.
      rows: `[q, l]` int32, as of `word_rows`; the same on all processes.
      batch: rows embedded together.
      sharding: of the features, such as `replicated(mesh)`; None: as they come.

    Returns:
      Features `[q, ...]`; of features of single tokens (`*_tokens`, `*_mask`) only as many as the
      longest row has.
    """
    embed = _compile(text_features, sharding)
    missing = -len(rows) % batch
    padded = np.concatenate([rows, np.repeat(rows[-1:], missing, axis=0)])
    parts = [embed(variables, part) for part in padded.reshape(-1, batch, rows.shape[1])]
    longest = int((rows != PAD).sum(1).max())

    def join(*features: Features) -> Features:
        whole = {name: jnp.concatenate([f[name] for f in features]) for name in features[0]}
        return {name: _shorten(name, f[: len(rows)], longest) for name, f in whole.items()}

    return jax.jit(join, out_shardings=sharding)(*parts)


@functools.lru_cache(maxsize=8)
def _compile(features: Callable, sharding: Sharding | None) -> Callable:
    return jax.jit(features, out_shardings=sharding)


def _shorten(name: str, values: Array, longest: int) -> Array:
    return values[:, :longest] if name.endswith(("_tokens", "_mask")) else values


def retrieve(
    images: Features,
    words: Features,
    *,
    similarity: FeatureSimilarity,
    top_k: int,
    chunk: int | None = None,
) -> Array:
    """The words that are most like each image, as the images see them; exact.

    Works inside `jit`, on images that are split by row; the words may lie anywhere.

    Args:
      images: features `[b, ...]`.
      words: features `[q, ...]`.
      similarity: how they are compared.
      top_k: words wanted for each image, `k`.
      chunk: words met at a time, which bounds the memory; None: by the number of images and
        tokens. The words found are the same for any.

    Returns:
      `[b, k]` int32 numbers of words, the best first; of equal scores the lower number. -1 where
      there are fewer words than that, or scores are no numbers.
    """
    looking, candidates = similarity.images(images), similarity.texts(words)
    num_images, num_words = len(looking.features), len(candidates.features)
    chunk = min(chunk or _words_at_a_time(looking, candidates), num_words)
    parts = jax.tree.map(lambda values: _cut(values, chunk), candidates)
    firsts = jnp.arange(0, num_words, chunk, dtype=jnp.int32)

    def meet(best: tuple[Array, Array], part: tuple[Side, Array]) -> tuple[tuple, None]:
        side, first = part
        scores = similarity.compare(
            looking.features, side.features, looking.mask, side.mask
        ).per_row.astype(jnp.float32)
        ids = first + jnp.arange(chunk, dtype=jnp.int32)
        scores = jnp.where((ids < num_words) & ~jnp.isnan(scores), scores, -jnp.inf)
        # Earlier words stand first, and top_k takes the first of equals.
        all_scores = jnp.concatenate([best[0], scores], axis=1)
        all_ids = jnp.concatenate([best[1], jnp.broadcast_to(ids, scores.shape)], axis=1)
        kept, places = jax.lax.top_k(all_scores, top_k)
        return (kept, jnp.take_along_axis(all_ids, places, axis=1)), None

    none = (
        jnp.full((num_images, top_k), -jnp.inf, jnp.float32),
        jnp.full((num_images, top_k), NONE, jnp.int32),
    )
    (scores, ids), _ = jax.lax.scan(meet, none, (parts, firsts))
    return jnp.where(scores > -jnp.inf, ids, NONE)


def _words_at_a_time(images: Side, words: Side) -> int:
    tokens = math.prod((*images.features.shape[:-1], *words.features.shape[1:-1]))
    return max(_LEAST_WORDS, _MAX_SCORES // tokens)


def _cut(values: Array, chunk: int) -> Array:
    """`[q, ...]` to `[parts, chunk, ...]`, filled up with zeros."""
    missing = -len(values) % chunk
    padded = jnp.pad(values, [(0, missing)] + [(0, 0)] * (values.ndim - 1))
    return padded.reshape(-1, chunk, *values.shape[1:])
