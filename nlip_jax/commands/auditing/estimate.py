"""From the losses of pairs to noise probabilities, as a column that training can choose by."""

import dataclasses
import hashlib
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np

from nlip_jax.columns import ColumnVersion
from nlip_jax.data.source import Source
from nlip_jax.errors import RunError
from nlip_jax.estimators.gaussian_mixture import FitResult, GaussianMixture
from nlip_jax.methods.nlip import mixture_to_json

_LEAST = 100  # losses; a mixture of fewer says nothing


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Estimate:
    """Noise probabilities, and what they come from.

    Attributes:
      fitted: the mixture.
      noise_prob: `[n]` float32, NaN where no loss is known.
      column: where they lie.
    """

    fitted: FitResult
    noise_prob: np.ndarray
    column: Path


def estimate(
    losses: np.ndarray,
    *,
    fit: Callable[[np.ndarray], FitResult],
    posterior: Callable[[GaussianMixture, np.ndarray], np.ndarray],
    folder: Path,
    source: Source,
    made_of: list,
) -> Estimate:
    """Fits two Gaussians to the losses and writes the probability of the upper one as a column.

    Versions are immutable: other losses, of more pairs perhaps, make another version.

    Args:
      losses: `[n]` float32 nats, NaN where none is known.
      fit: losses -> mixture.
      posterior: (mixture, losses) -> noise probabilities.
      folder: of the audit.
      source: whose examples they are.
      made_of: plain values that the losses depend on.

    Raises:
      RunError: there are too few losses.
    """
    known = int(np.isfinite(losses).sum())
    if known < _LEAST:
        raise RunError(
            f"the losses of {known} pairs are known, and an estimate needs {_LEAST}: give the "
            "audit more --minutes, or more data"
        )
    fitted = fit(losses)
    noise_prob = posterior(fitted.mixture, losses)
    noise_prob[np.isnan(losses)] = np.nan  # who keeps what is clean shall not keep the unknown
    key = hashlib.sha256(json.dumps([*made_of, known]).encode()).hexdigest()[:16]
    column = _version(folder / "columns" / "noise_prob", key=key, source=source)
    if not column.is_done:
        column.prepare()
        column.write_dense(noise_prob, meta=mixture_to_json(fitted.mixture))
    return Estimate(fitted=fitted, noise_prob=noise_prob, column=column.directory)


def _version(folder: Path, *, key: str, source: Source) -> ColumnVersion:
    """The version with this key, or the next one."""
    made_for = dataclasses.asdict(source.numberings[-1])
    number = 1
    while True:
        version = ColumnVersion(directory=folder / f"{number:04d}", key=key, made_for=made_for)
        if version.is_done or not (version.directory / "DONE").exists():
            return version
        number += 1
