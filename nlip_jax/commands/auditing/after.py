"""The stages after embedding: from the losses of pairs to the files and the page of an audit."""

import dataclasses
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from nlip_jax.commands.auditing import show
from nlip_jax.commands.auditing.duplicates import Duplicates, find_duplicates
from nlip_jax.commands.auditing.estimate import Estimate, estimate
from nlip_jax.commands.auditing.evidence import Evidence
from nlip_jax.commands.auditing.kept import Limits
from nlip_jax.commands.auditing.missing import MissingConcepts
from nlip_jax.commands.auditing.tables import Written, write_tables
from nlip_jax.commands.auditing.work import Progress, Work
from nlip_jax.data.listing import Listing
from nlip_jax.data.members import Members
from nlip_jax.data.source import Source
from nlip_jax.errors import RunError
from nlip_jax.estimators.gaussian_mixture import FitResult, GaussianMixture
from nlip_jax.evaluators.noise import evaluate_noise
from nlip_jax.files import json_text, write_atomically
from nlip_jax.report import audit_page

RESULTS, PAGE = "results.json", "audit.html"


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Embedded:
    """What the stages before have found.

    Attributes:
      folder: of the audit.
      source: the data set.
      members: the examples of it that are audited.
      listing: their captions and names, as far as they were read.
      losses: `[n]` float32 nats, NaN where none is known.
      looked_at: pairs that a loss was asked of; those without one cannot be read.
      made_of: plain values that the losses depend on.
      missing: concepts of images; None where nobody looked for any.
      propose: noise probabilities -> captions by example; called as a stage of its own, and says
        how far it came. None where nobody can make any.
    """

    folder: Path
    source: Source
    members: Members
    listing: Listing
    losses: np.ndarray
    looked_at: int
    made_of: list
    missing: MissingConcepts | None = None
    propose: Callable[[np.ndarray, Progress], Mapping[int, str]] | None = None


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Rules:
    """How they work.

    Attributes:
      fit: losses -> mixture.
      posterior: (mixture, losses) -> noise probabilities.
      limits: what counts as good enough.
      near: similarity from which captions belong together.
      max_pixels: of an image that is shown.
      seed: of the choice of pairs that are shown.
    """

    fit: Callable[[np.ndarray], FitResult]
    posterior: Callable[[GaussianMixture, np.ndarray], np.ndarray]
    limits: Limits
    near: float
    max_pixels: int
    seed: int = 0


def finish(
    found: Embedded, rules: Rules, *, work: Work, labels: Callable[[FitResult], show.Labels]
) -> dict[str, float]:
    """Writes everything into the folder of the audit.

    Args:
      found: by the stages before.
      rules: of these.
      work: the account.
      labels: what the page says of itself; asked with the mixture when all but the page is done.

    Returns:
      The numbers of the audit by name.

    Raises:
      RunError: too few losses are known, or the folder cannot be written.
    """
    try:
        return _finish(found, rules, work, labels)
    except OSError as error:
        raise RunError(f"{error}; run the same command again to go on") from error


def _finish(
    found: Embedded, rules: Rules, work: Work, labels: Callable[[FitResult], show.Labels]
) -> dict[str, float]:
    with work.stage("estimate") as progress:
        estimated = estimate(
            found.losses,
            fit=rules.fit,
            posterior=rules.posterior,
            folder=found.folder,
            source=found.source,
            made_of=found.made_of,
        )
        progress.done = f"{estimated.fitted.num_losses:,} losses"
        progress.finished = not estimated.fitted.degenerate
    proposed = {}
    if found.propose is not None:
        with work.stage("captions") as progress:
            proposed = found.propose(estimated.noise_prob, progress)
    with work.stage("nearly identical captions") as progress:
        duplicates = find_duplicates(found.listing, least=rules.near, folder=found.folder)
        progress.done = (
            f"{duplicates.num_compared:,} captions, of which {duplicates.num_grouped:,} are in "
            f"{len(duplicates.sizes):,} groups"
        )
    with work.stage("tables") as progress:
        evidence = Evidence(
            members=found.members,
            listing=found.listing,
            losses=found.losses,
            noise_prob=estimated.noise_prob,
            group=duplicates.group,
            proposed=proposed,
            **({"missing": found.missing} if found.missing else {}),
        )
        written = write_tables(evidence, found.folder, limits=rules.limits)
        progress.done = f"{written.pairs:,} pairs, shards: {len(written.shards):,}"
    results = numbers(evidence, estimated, duplicates, written)
    results["audit/unreadable_pairs"] = found.looked_at - results["audit/looked_at"]
    results["audit/unfinished_stages"] = len(work.unfinished)
    results |= planted_noise(found.source, estimated.noise_prob)
    with work.stage("page") as progress:
        shown = show.Shown(
            evidence=evidence,
            source=found.source,
            estimated=estimated,
            duplicates=duplicates,
            written=written,
            limits=rules.limits,
            max_pixels=rules.max_pixels,
            seed=rules.seed,
        )
        report = show.make_report(
            shown, results=results, stages=work.stages, labels=labels(estimated.fitted)
        )
        audit_page.write(found.folder / PAGE, report)
        progress.done = PAGE
    results |= {
        f"time/{stage.name.replace(' ', '_')}_seconds": stage.seconds for stage in work.stages
    }
    write_atomically(
        found.folder / RESULTS, (json_text(results, indent=2) + "\n").encode()
    )
    return results


def numbers(
    evidence: Evidence, estimated: Estimate, duplicates: Duplicates, written: Written
) -> dict[str, Any]:
    """What was found, flat."""
    read = estimated.noise_prob[np.isfinite(estimated.noise_prob)]
    results = {
        "audit/pairs": written.pairs,
        "audit/looked_at": len(read),
        "audit/looked_at_share": len(read) / max(written.pairs, 1),
        "audit/compared_captions": duplicates.num_compared,
        "audit/unreadable_captions": written.unreadable,
        "audit/noisy_share": float((read >= 0.5).mean()),
        "audit/mean_noise_prob": float(read.mean(dtype=np.float64)),
        "audit/kept_pairs": written.kept,
        "audit/shards": len(written.shards),
        "audit/kept_shards": written.kept_shards,
        "audit/equal_captions": duplicates.num_equal,
        "audit/near_identical_captions": duplicates.num_grouped,
        "audit/near_identical_share": duplicates.num_grouped / max(duplicates.num_compared, 1),
        "audit/groups": len(duplicates.sizes),
        "audit/proposed_captions": len(evidence.proposed),
    }
    if written.uids is not None:
        results["audit/kept_uids"] = written.uids
    return results


def planted_noise(source: Source, noise_prob: np.ndarray) -> dict[str, float]:
    """How well planted noise was found, where some is."""
    truth, known = source.truth(), np.isfinite(noise_prob)
    if truth is None:
        return {}
    found = evaluate_noise(noise_prob[known], truth[known])
    return {f"noise/{name}": value for name, value in found.items()}
