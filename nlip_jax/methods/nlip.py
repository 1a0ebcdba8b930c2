"""NLIP's noise harmonization: trust each pair as far as its noise probability allows.

Networks fit clean pairs first, so after a warm-up on plain InfoNCE the loss of a pair tells how
likely it is noise (Huang et al., AAAI 2023). Two Gaussians fitted to the losses of all pairs give
`noise_prob`; from then on the target of pair i is softened by weight * noise_prob_i.
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
from nlip_jax.losses.targets import Targets
from nlip_jax.methods.base import Episode, Features
from nlip_jax.methods.clip import Clip
from nlip_jax.types import Array, Batch, LossOutput, PyTree, TrainState

_LOG = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Nlip(Clip):
    """CLIP whose targets adapt to the noise of each pair.

    Attributes:
      weight: lambda; a pair's target is softened by weight * noise_prob.
      form: (row statistics, weight [b]) -> [b], of `targets.NOISE_ADAPTIVE` for the normaliser.
      fit: losses of this host -> `FitResult`; compiled and sharded, bound to the mesh.
      posterior: (mixture, losses) -> noise probability of each.
    """

    weight: float
    form: Callable[[Any, Array], Array]
    fit: Callable[[np.ndarray], FitResult]
    posterior: Callable[[GaussianMixture, np.ndarray], np.ndarray]

    @property
    def columns(self) -> tuple[str, ...]:
        """The noise probabilities; 0, which is plain InfoNCE, until the first estimate."""
        return ("noise_prob",)

    def init_state(self, params: PyTree) -> GaussianMixture:
        """The mixture of the last estimate."""
        del params
        pair = jnp.zeros((2,), jnp.float32)
        zero = jnp.zeros((), jnp.float32)
        return GaussianMixture(mean=pair, variance=pair, weight=pair, low=zero, high=zero)

    def targets(self, batch: Batch) -> Targets:
        """Targets softened by each pair's noise probability."""
        weight = self.weight * batch["noise_prob"]
        return lambda statistics: self.form(statistics, weight)

    def pair_loss(
        self, params: PyTree, features: Features, state: TrainState, batch: Batch
    ) -> LossOutput:
        """Contrast against the softened targets."""
        output = super().pair_loss(params, features, state, batch)
        return output.replace(
            metrics=output.metrics | {"noise_prob": jnp.mean(batch["noise_prob"])}
        )

    def plain_pair_loss(self, state: TrainState, batch: Batch) -> Array:
        """The loss of each pair, [b], with one-hot targets: what the mixture is fitted to.

        Duplicates that are positives are left out here: a pair that has to share its probability
        with others in its batch would look as noisy as one that is wrong.
        """
        engine = self.engine
        if engine.duplicates == "positives":
            engine = dataclasses.replace(engine, duplicates="ignored")
        features = self.embed(state.params, state, batch, rng=None).features
        scalars = self.scalars(state.params)
        return self.contrast(
            features, batch, targets=targets.identity, scalars=scalars, engine=engine
        ).pair_loss

    def refresh(self, state: TrainState, episode: Episode) -> TrainState:
        """Loss pass over all pairs, mixture, noise probabilities as a column."""
        noise_prob = episode.column("noise_prob")
        if not noise_prob.is_done:
            phases.enter("loss_pass", episode=episode.index)
            losses = episode.map_examples("pair_loss", self.plain_pair_loss, state)
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
