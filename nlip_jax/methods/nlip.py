"""NLIP's noise harmonization: trust each pair as far as its noise probability allows.

Networks fit clean pairs first, so after a warm-up on plain InfoNCE the loss of a pair tells how
likely it is noise (Huang et al., AAAI 2023). Two Gaussians fitted to the losses of all pairs give
`noise_prob`; from then on the target of pair i is softened by weight * noise_prob_i. Where there
are synthetic captions, noisy pairs may show those instead (`completion.py`).
"""

import dataclasses
import logging
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from nlip_jax import columns, phases
from nlip_jax.estimators.gaussian_mixture import FitResult, GaussianMixture
from nlip_jax.losses import targets
from nlip_jax.losses.contrastive import ContrastiveLoss, plain_pair_loss
from nlip_jax.losses.targets import Targets
from nlip_jax.methods.base import Embedded, Episode, Features, Joined
from nlip_jax.methods.clip import Clip
from nlip_jax.methods.completion import OWN_TEXTS, Completion, has_text
from nlip_jax.models.dropout import example_keys, fold
from nlip_jax.types import Array, Batch, LossOutput, PyTree, TrainState

_LOG = logging.getLogger(__name__)

# What a refresh may do -> the columns it makes, in the order of the work.
WORKS = {
    "concepts": ("concepts",),
    "estimate": ("pair_loss", "noise_prob"),
    "captions": ("synthetic_caption",),
    "match": ("similarity", "match"),
}
_TEXT_KEY = 2  # 0 and 1 are the towers'


@dataclasses.dataclass(frozen=True, kw_only=True)
class Nlip(Clip):
    """CLIP whose targets adapt to the noise of each pair.

    Attributes:
      weight: lambda; a pair's target is softened by weight * noise_prob.
      form: (row statistics, weight [b]) -> [b], of `targets.NOISE_ADAPTIVE` for the normaliser.
      fit: losses of this host -> `FitResult`; compiled and sharded, bound to the mesh.
      posterior: (mixture, losses) -> noise probability of each.
      works: of each refresh, keys of `WORKS`; (): each estimates.
      completion: which texts are trained on.
      context_length: tokens of a synthetic text.
      itc_weight: of the contrastive loss.
      online_window: steps up to an estimate whose losses it is made of; 0: those of a pass.
      completion_end: step from which own texts alone are shown again; 0: there is none.
    """

    weight: float
    form: Callable[[Any, Array], Array]
    fit: Callable[[np.ndarray], FitResult]
    posterior: Callable[[GaussianMixture, np.ndarray], np.ndarray]
    works: tuple[tuple[str, ...], ...] = ()
    completion: Completion = OWN_TEXTS
    context_length: int = 0
    itc_weight: float = 1.0
    online_window: int = 0
    completion_end: int = 0

    # --- what is known of the pairs ---------------------------------------------------------------
    @property
    def columns(self) -> tuple[str, ...]:
        """The noise probabilities; 0, which is plain InfoNCE, until the first estimate."""
        texts = ("synthetic_tokens",) if self.completion.uses_captions else ()
        match = ("match",) if self.completion.uses_match else ()
        return ("noise_prob", *texts, *match)

    def joined(self, name: str) -> Joined:
        """Where what a batch shows comes from."""
        shapes = {
            "synthetic_tokens": Joined("synthetic_caption", (self.context_length,), np.int32),
            "match": Joined("match", (2,)),
        }
        return shapes.get(name, Joined(name))

    def version(self, column: str, episode: int) -> int:
        """The last episode so far whose refresh made the column; 0 for none."""
        if not self.works:
            return episode
        made = [column in self.makes(number) for number in range(1, episode + 1)]
        return len(made) - made[::-1].index(True) if any(made) else 0

    def shows(self, column: str, episode: int) -> bool:
        """Synthetic captions end with the completion."""
        if column != "synthetic_caption" or not self.completion_end or not episode:
            return True
        return self.refresh_steps[episode - 1] < self.completion_end

    def makes(self, episode: int) -> tuple[str, ...]:
        """The columns that the refresh before an episode makes."""
        return tuple(name for work in self.works_of(episode) for name in WORKS[work])

    def works_of(self, episode: int) -> tuple[str, ...]:
        """What the refresh before an episode does."""
        return self.works[episode - 1] if self.works else ("estimate",)

    def loss_window(self, episode: int) -> range:
        """The last steps before an estimate, where it is made of the losses of training."""
        if not self.online_window or "estimate" not in self.works_of(episode):
            return range(0)
        last = self.refresh_steps[episode - 1]
        return range(max(1, last - self.online_window + 1), last + 1)

    def init_state(self, params: PyTree) -> GaussianMixture:
        """The mixture of the last estimate."""
        del params
        pair = jnp.zeros((2,), jnp.float32)
        zero = jnp.zeros((), jnp.float32)
        return GaussianMixture(mean=pair, variance=pair, weight=pair, low=zero, high=zero)

    # --- the loss ---------------------------------------------------------------------------------
    def targets(self, batch: Batch) -> Targets:
        """Targets softened by each pair's noise probability."""
        weight = self.weight * batch["noise_prob"]
        return lambda statistics: self.form(statistics, weight)

    def embed(
        self, params: PyTree, state: TrainState, batch: Batch, *, rng: Array | None
    ) -> Embedded:
        """Features of images and of the texts that are shown: in passes, always the own ones.

        With completion also "is_synthetic" [b], "shown_tokens" [b, l] and, for a union, features of
        the synthetic texts with "synthetic_" before their names.
        """
        if rng is None or not self.completion.uses_captions:
            return self.embed_shown(params, state, batch, rng=rng)
        keys = example_keys(rng, batch["row"])
        is_synthetic = self.completion.choose(batch, fold(keys, _TEXT_KEY))
        tokens = jnp.where(is_synthetic[:, None], batch["synthetic_tokens"], batch["tokens"])
        embedded = self.embed_shown(params, state, {**batch, "shown_tokens": tokens}, rng=rng)
        features = {**embedded.features, "is_synthetic": is_synthetic, "shown_tokens": tokens}
        if self.completion.is_union:
            variables = {"params": params, **state.model_state}
            texts = self.encode_text(
                variables, batch["synthetic_tokens"], batch, keys=fold(keys, _TEXT_KEY + 1)
            )
            features |= {f"synthetic_{name}": value for name, value in texts.items()}
        return embedded.replace(features=features)

    def encode_text(
        self, variables: PyTree, tokens: Array, batch: Batch, *, keys: Array | None
    ) -> Features:
        """Features of texts that a batch shows, `[b, l]`; in training with random keys, `[b]`."""
        del batch
        return self.model.apply(variables, tokens, keys, method="encode_text")

    def embed_shown(
        self, params: PyTree, state: TrainState, batch: Batch, *, rng: Array | None
    ) -> Embedded:
        """Features of images and of "shown_tokens", or of the own texts where there are none."""
        shown = {**batch, "tokens": batch.get("shown_tokens", batch["tokens"])}
        return super().embed(params, state, shown, rng=rng)

    def pair_loss(
        self, params: PyTree, features: Features, state: TrainState, batch: Batch
    ) -> LossOutput:
        """Contrast against the softened targets; synthetic texts count as clean."""
        del state
        scalars = self.scalars(params)
        is_synthetic = features.get("is_synthetic", jnp.zeros(len(batch["tokens"]), bool))
        shown = {
            **batch,
            "tokens": features.get("shown_tokens", batch["tokens"]),
            "noise_prob": jnp.where(is_synthetic, 0.0, batch["noise_prob"]),
        }
        valid = self.completion.kept(batch, is_synthetic)
        found = self.contrast(
            features, shown, targets=self.targets(shown), scalars=scalars, valid=valid
        )
        loss = found.loss
        metrics = {**scalars, "noise_prob": jnp.mean(batch["noise_prob"])}
        if self.completion.uses_captions:
            metrics["synthetic_share"] = jnp.mean(is_synthetic, dtype=jnp.float32)
        if valid is not None:
            metrics["dropped_share"] = 1.0 - jnp.mean(valid, dtype=jnp.float32)
        if self.completion.is_union:
            second, kept = self._synthetic_loss(features, batch, scalars=scalars)
            metrics["synthetic_share"] = jnp.mean(kept, dtype=jnp.float32)
            loss = jnp.where(jnp.any(kept), (loss + second.loss) / 2, loss)
        if self.finds_duplicates:
            # Each pair of duplicates was seen from both of its ends.
            metrics["duplicate_pairs"] = jnp.sum(found.images.duplicates) / 2
        if self.online_window:
            tells = ~is_synthetic if valid is None else valid & ~is_synthetic
            metrics["pair_loss"] = jnp.where(tells, plain_pair_loss(found), jnp.nan)
        return LossOutput(loss=self.itc_weight * loss, metrics=metrics)

    def _synthetic_loss(
        self, features: Features, batch: Batch, *, scalars: dict[str, Array]
    ) -> tuple[ContrastiveLoss, Array]:
        """The loss of the images and their synthetic texts, and the pairs that take part, [b]."""
        synthetic = "synthetic_"
        texts = {
            name.removeprefix(synthetic): value
            for name, value in features.items()
            if name.startswith(synthetic)
        }
        kept = has_text(batch["synthetic_tokens"])
        also = self.completion.kept(batch, jnp.ones_like(kept))
        kept = kept if also is None else kept & also
        found = self.contrast(
            {**features, **texts},
            {**batch, "tokens": batch["synthetic_tokens"]},
            targets=targets.identity,
            scalars=scalars,
            valid=kept,
        )
        return found, kept

    # --- between episodes -------------------------------------------------------------------------
    def refresh(self, state: TrainState, episode: Episode) -> TrainState:
        """The works of this episode, each leaving its columns."""
        does = {
            "concepts": self.find_concepts,
            "estimate": self.estimate,
            "captions": self.make_captions,
            "match": self.judge_match,
        }
        for work in self.works_of(episode.index):
            state = does[work](state, episode)
        return state

    def estimate(self, state: TrainState, episode: Episode) -> TrainState:
        """Losses of all pairs, mixture, noise probabilities as a column."""
        noise_prob = episode.column("noise_prob")
        if not noise_prob.is_done:
            losses = self.losses(state, episode)
            phases.enter("mixture_fit", episode=episode.index)
            own = columns.own_share(losses)
            fitted = self.fit(own)
            noise_prob.prepare()
            if jax.process_index() == 0:
                describe_fit(fitted)
            found = self.posterior(fitted.mixture, own)
            found[np.isnan(own)] = np.nan  # who keeps what is clean shall not keep the unknown
            noise_prob.write_dense(found, meta=mixture_to_json(fitted.mixture))
        mixture = mixture_from_json(noise_prob.meta())
        placed = jax.tree.map(
            lambda new, old: jax.device_put(new, old.sharding), mixture, state.method_state
        )
        return state.replace(method_state=placed)

    def losses(self, state: TrainState, episode: Episode) -> np.ndarray:
        """The plain loss of every pair, `[n]`: of a pass, or the mean of what training saw."""
        if self.online_window:
            return episode.recent_losses("pair_loss")
        phases.enter("loss_pass", episode=episode.index)
        return episode.map_examples("pair_loss", self.plain_pair_loss, state)

    def find_concepts(self, state: TrainState, episode: Episode) -> TrainState:
        """Concepts of all images, as a column; for models that take some."""
        raise TypeError(f"{type(self).__name__} knows no concepts")

    def make_captions(self, state: TrainState, episode: Episode) -> TrainState:
        """Captions of all images, as a column; for models that make some."""
        raise TypeError(f"{type(self).__name__} makes no captions")

    def judge_match(self, state: TrainState, episode: Episode) -> TrainState:
        """Probabilities that own and synthetic texts do not match their images, as a column.

        Two Gaussians over the similarities of the own texts tell what a match looks like; synthetic
        texts are judged by the same two. BLIP asks a classifier that people's captions trained.
        """
        match = episode.column("match")
        if not match.is_done:
            phases.enter("match_pass", episode=episode.index)
            join = ("synthetic_tokens",) if self.completion.uses_captions else ()
            found = episode.map_examples("similarity", self.similarities, state, join=join)
            distance = -columns.own_share(found)
            fitted = self.fit(np.ascontiguousarray(distance[:, 0]))
            match.prepare()
            judged = np.stack(
                [self.posterior(fitted.mixture, np.ascontiguousarray(d)) for d in distance.T],
                axis=1,
            )
            judged[np.isnan(distance)] = np.nan
            match.write_dense(judged, meta=mixture_to_json(fitted.mixture))
        return state

    def similarities(self, state: TrainState, batch: Batch) -> Array:
        """Of each image to its own and to its synthetic text, [b, 2]; NaN where there is none."""
        variables = {"params": state.params, **state.model_state}
        images = self.image_features(variables, batch["image"])

        def score(tokens: Array) -> Array:
            texts = self.text_features(variables, tokens)
            return jnp.where(has_text(tokens), self.similarity.score_pairs(images, texts), jnp.nan)

        synthetic = batch.get("synthetic_tokens", jnp.zeros_like(batch["tokens"]))
        return jnp.stack([score(batch["tokens"]), score(synthetic)], axis=1)


def describe_fit(fitted: FitResult) -> None:
    """One line that tells what was found, and a warning where it should not be relied on."""
    mixture = fitted.mixture
    scale = float(mixture.high - mixture.low)
    clean, noisy = (float(mixture.low) + scale * float(m) for m in mixture.mean)
    _LOG.info(
        "noise estimated: clean pairs lose %.2f nats, noisy ones %.2f, %.0f %% are noisy",
        *(clean, noisy, 100 * float(mixture.weight[1])),
    )
    if fitted.degenerate:
        _LOG.warning("all pairs have the same loss: none is taken for noise; warm up longer")
    elif not fitted.converged:
        _LOG.warning(
            "the mixture had not converged after %d iterations; raise config.nlip.max_iterations",
            fitted.iterations,
        )
    if fitted.num_non_finite:
        _LOG.warning(
            "%d pairs have no finite loss (left out, or not readable) and count as clean",
            fitted.num_non_finite,
        )


def mixture_to_json(mixture: GaussianMixture) -> dict[str, Any]:
    """A mixture as plain lists; float32 values survive JSON exactly."""
    return {
        field.name: np.asarray(getattr(mixture, field.name), np.float64).tolist()
        for field in dataclasses.fields(mixture)
    }


def mixture_from_json(meta: dict[str, Any]) -> GaussianMixture:
    """The inverse of `mixture_to_json`, as NumPy arrays."""
    return GaussianMixture(**{name: np.asarray(value, np.float32) for name, value in meta.items()})
