"""NLIP's noise completion: which text a pair shows in training, its own or a synthetic one.

A pair of noise probability e shows the caption that a model made of its image with probability e
(Huang et al., AAAI 2023; what the paper leaves open is a field). Also here are the published
alternatives: a hard threshold, both texts, and dropping texts (BLIP, Li et al., ICML 2022).
"""

import dataclasses
from collections.abc import Callable

import jax
import jax.numpy as jnp

from nlip_jax.types import Array, Batch


def _none(batch: Batch, keys: Array, threshold: float) -> Array:
    del keys, threshold
    return jnp.zeros(len(batch["tokens"]), bool)


def _by_noise_prob(batch: Batch, keys: Array, threshold: float) -> Array:
    del threshold
    return jax.vmap(jax.random.uniform)(keys) < batch["noise_prob"]


def _by_threshold(batch: Batch, keys: Array, threshold: float) -> Array:
    del keys
    return batch["noise_prob"] > threshold


# Name of a rule -> (batch, keys [b], threshold) -> [b] bool, the pairs that are to show a synthetic
# text. A union shows the own ones first, and the synthetic ones in a second loss.
RULES: dict[str, Callable[[Batch, Array, float], Array]] = {
    "none": _none,
    "noise_prob": _by_noise_prob,
    "threshold": _by_threshold,
    "union": _none,
}


def _keep_all(batch: Batch, is_synthetic: Array) -> None:
    del batch, is_synthetic


def _noise(batch: Batch, is_synthetic: Array) -> Array:
    return jnp.where(is_synthetic, 0.0, batch["noise_prob"])


def _no_match(batch: Batch, is_synthetic: Array) -> Array:
    return jnp.where(is_synthetic, batch["match"][:, 1], batch["match"][:, 0])


# What texts are dropped by -> (batch, which texts are synthetic [b]) -> [b] probability that the
# text should be; None: none is.
DROPS: dict[str, Callable[[Batch, Array], Array | None]] = {
    "none": _keep_all,
    "noise_prob": _noise,
    "match": _no_match,
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Completion:
    """Which texts are trained on.

    Attributes:
      rule: a key of `RULES`.
      threshold: of noise_prob, for that rule.
      drop: a key of `DROPS`.
      drop_above: texts with a higher probability take no part in the contrastive loss.
    """

    rule: str = "none"
    threshold: float = 0.5
    drop: str = "none"
    drop_above: float = 0.5

    @property
    def uses_captions(self) -> bool:
        """Whether synthetic texts are needed."""
        return self.rule != "none"

    @property
    def is_union(self) -> bool:
        """Whether both texts of a pair are trained on."""
        return self.rule == "union"

    @property
    def uses_match(self) -> bool:
        """Whether it matters how well texts match their images."""
        return self.drop == "match"

    def choose(self, batch: Batch, keys: Array) -> Array:
        """The pairs that show their synthetic text, `[b]` bool; only such as have one.

        Args:
          batch: with "noise_prob" and "synthetic_tokens".
          keys: `[b]`, used for nothing else.
        """
        wanted = RULES[self.rule](batch, keys, self.threshold)
        return wanted & has_text(batch["synthetic_tokens"])

    def kept(self, batch: Batch, is_synthetic: Array) -> Array | None:
        """The pairs that take part in the contrastive loss, `[b]` bool; None: all of them.

        Args:
          batch: with "noise_prob" and, to drop by match, "match".
          is_synthetic: `[b]` bool, which texts are.
        """
        probability = DROPS[self.drop](batch, is_synthetic)
        return None if probability is None else probability <= self.drop_above


OWN_TEXTS = Completion()


def has_text(tokens: Array) -> Array:
    """Rows with more than [bos] and [eos]: `[b, l]` to `[b]` bool."""
    return jnp.sum(tokens != 0, axis=1) > 2
