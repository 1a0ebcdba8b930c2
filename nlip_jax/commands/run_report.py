"""Fills the page of a run from its files: curves, estimates of noise, telling pairs."""

import contextlib
import importlib.metadata
import platform

import numpy as np

from nlip_jax import __version__
from nlip_jax.commands.run_texts import texts_report
from nlip_jax.commands.session import Session
from nlip_jax.data.failures import ReadError
from nlip_jax.data.images.decode import to_pixels
from nlip_jax.data.source import TRUTH
from nlip_jax.evaluators.noise import calibration
from nlip_jax.report import page
from nlip_jax.report.records import CalibrationBin, NoiseEstimate, Pair, RunReport
from nlip_jax.train.metrics import read_metrics
from nlip_jax.types import TrainState

_BINS = 80
_PACKAGES = ("jax", "flax", "optax", "orbax-checkpoint", "grain", "numpy")


def write_report(run: Session, state: TrainState, *, results: dict[str, float]) -> None:
    """Writes report.html into the workdir of a run.

    Args:
      run: the run, with its source and columns.
      state: at the end of the run.
      results: what results.json will hold.
    """
    versions = [f"{name} {importlib.metadata.version(name)}" for name in _PACKAGES]
    report = RunReport(
        title=f"{run.config.method} on {run.config.data.source}",
        description=(
            f"{run.plan.total:,} steps of {run.config.batch_size} pairs out of "
            f"{len(run.draw):,}"
        ),
        results=results,
        config=run.config.to_dict(),
        metrics=read_metrics(run.workdir / "metrics.jsonl"),
        noise=[noise_estimate(run, version, state) for version in _estimates(run, state)],
        texts=texts_report(run, state),
        provenance={
            "step": str(run.plan.total),
            "seed": str(run.config.seed),
            "data": run.fingerprint,
            "nlip_jax": __version__,
            "packages": ", ".join(versions),
            "python": platform.python_version(),
        },
    )
    page.write(run.workdir / "report.html", report)


def _estimates(run: Session, state: TrainState) -> list[int]:
    """The versions of the noise probabilities."""
    if "noise_prob" not in run.method.columns:
        return []
    every = range(1, int(state.episode) + 1)
    return [version for version in every if "noise_prob" in run.method.makes(version)]


def noise_estimate(run: Session, version: int, state: TrainState) -> NoiseEstimate:
    """One round of estimation, from its columns; pictures only for the last one."""
    column = run.column("noise_prob", version)
    losses, noise_prob = run.column("pair_loss", version).read(), column.read()
    mixture, truth = column.meta(), run.source.truth()
    ids = np.flatnonzero(np.isfinite(losses))  # the others take no part or could not be read
    finite, known = losses[ids], noise_prob[ids]
    counts, edges = np.histogram(finite, bins=_BINS)
    prob_counts, prob_edges = np.histogram(known, bins=40, range=(0, 1))
    by_truth = table = None
    if truth is not None:
        by_truth = {
            kind: np.histogram(finite[truth[ids] == code], bins=edges)[0]
            for code, kind in enumerate(TRUTH)
            if (truth[ids] == code).any()
        }
        table = [CalibrationBin(*row) for row in calibration(known, truth[ids] != 0)]
    most, least = [], []
    if version == _estimates(run, state)[-1]:
        # Ranked by loss: many probabilities are equal at both ends.
        order = ids[np.argsort(finite, kind="stable")]
        shown = run.config.nlip.num_shown
        known_of = {"noise_prob": noise_prob, "losses": losses, "truth": truth}
        most = _pairs(run, order[::-1][:shown], **known_of)
        least = _pairs(run, order[:shown], **known_of)
    return NoiseEstimate(
        step=run.method.refresh_steps[version - 1],
        losses_counts=counts,
        loss_edges=edges,
        mean=np.asarray(mixture["mean"]),
        variance=np.asarray(mixture["variance"]),
        weight=np.asarray(mixture["weight"]),
        low=mixture["low"],
        high=mixture["high"],
        noise_prob_counts=prob_counts,
        noise_prob_edges=prob_edges,
        counts_by_truth=by_truth,
        calibration=table,
        most_noisy=most,
        least_noisy=least,
    )


def _pairs(run: Session, example_ids: np.ndarray, **known_of: np.ndarray | None) -> list[Pair]:
    """Those of some examples that can still be read: a finished run does not fail for a picture."""
    pairs = []
    for example_id in example_ids.tolist():
        with contextlib.suppress(ReadError):
            pairs.append(_pair(run, example_id, **known_of))
    return pairs


def _pair(
    run: Session,
    example_id: int,
    *,
    noise_prob: np.ndarray,
    losses: np.ndarray,
    truth: np.ndarray | None,
) -> Pair:
    return Pair(
        example_id=example_id,
        image=to_pixels(
            run.source.picture(run.source.image_id(example_id)),
            max_pixels=run.config.data.max_pixels,
        ),
        caption=run.source.caption(example_id),
        noise_prob=float(noise_prob[example_id]),
        pair_loss=float(losses[example_id]),
        truth=None if truth is None else TRUTH[truth[example_id]],
    )


