"""What the page of an audit shows: chosen pairs, worst shards, largest groups."""

import contextlib
import dataclasses
import shlex
from collections.abc import Mapping, Sequence

import numpy as np
import pyarrow as pa

from nlip_jax.commands.auditing.duplicates import Duplicates
from nlip_jax.commands.auditing.estimate import Estimate
from nlip_jax.commands.auditing.evidence import Evidence
from nlip_jax.commands.auditing.kept import Limits, keeps_shard
from nlip_jax.commands.auditing.shard_account import worst_first
from nlip_jax.commands.auditing.tables import PAIRS, SHARDS, UIDS, Written
from nlip_jax.data.failures import ReadError
from nlip_jax.data.images.decode import to_pixels
from nlip_jax.data.source import TRUTH, Source
from nlip_jax.report.audit_records import (
    Artefact,
    AuditedPair,
    AuditReport,
    CaptionGroup,
    Decile,
    Stage,
    WorstShard,
)
from nlip_jax.report.records import NoiseEstimate

_BINS, _PROB_BINS = 80, 40
_DECILES, _PAIRS_OF_EACH = 10, 6
_SHARDS, _GROUPS, _CAPTIONS, _CONCEPTS = 20, 20, 4, 48
_SAMPLE = 200  # members of a group that are looked through for captions that differ


@dataclasses.dataclass(frozen=True, kw_only=True)
class Labels:
    """What a page says of itself.

    Attributes:
      title: of the page.
      description: one line.
      notes: what was not finished and the like.
      provenance: what made the numbers.
    """

    title: str
    description: str
    notes: Sequence[str] = ()
    provenance: Mapping[str, str] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Shown:
    """What can be shown.

    Attributes:
      evidence: of each pair.
      source: of the pictures.
      estimated: noise probabilities.
      duplicates: groups of captions.
      written: what came of going through all pairs.
      limits: what is kept.
      max_pixels: of a picture.
      seed: of the choice of pairs.
    """

    evidence: Evidence
    source: Source
    estimated: Estimate
    duplicates: Duplicates
    written: Written
    limits: Limits
    max_pixels: int
    seed: int


def make_report(
    shown: Shown, *, results: Mapping[str, float], stages: Sequence[Stage], labels: Labels
) -> AuditReport:
    """Everything on the page."""
    worst = worst_first(shown.written.shards)
    return AuditReport(
        **{field.name: getattr(labels, field.name) for field in dataclasses.fields(labels)},
        results=results,
        stages=stages,
        noise=_noise(shown),
        deciles=_deciles(shown),
        shards=[_shard(shown, shard) for shard in worst[:_SHARDS]] if len(worst) > 1 else [],
        num_shards=len(shown.written.shards),
        groups=_groups(shown),
        num_groups=len(shown.duplicates.sizes),
        missing=shown.written.missing.most_common(_CONCEPTS),
        artefacts=artefacts(shown),
    )


def _noise(shown: Shown) -> NoiseEstimate:
    losses = shown.evidence.losses
    known = np.isfinite(losses)
    finite = losses[known]
    counts, edges = np.histogram(finite, bins=_BINS)
    probs, prob_edges = np.histogram(
        shown.evidence.noise_prob[known], bins=_PROB_BINS, range=(0, 1)
    )
    truth, by_truth = shown.source.truth(), None
    if truth is not None:
        of = truth[known]
        by_truth = {
            kind: np.histogram(finite[of == code], bins=edges)[0]
            for code, kind in enumerate(TRUTH)
            if (of == code).any()
        }
    mixture = shown.estimated.fitted.mixture
    return NoiseEstimate(
        step=0,
        losses_counts=counts,
        loss_edges=edges,
        mean=np.asarray(mixture.mean),
        variance=np.asarray(mixture.variance),
        weight=np.asarray(mixture.weight),
        low=float(mixture.low),
        high=float(mixture.high),
        noise_prob_counts=probs,
        noise_prob_edges=prob_edges,
        counts_by_truth=by_truth,
    )


def _deciles(shown: Shown) -> list[Decile]:
    """By loss, since many noise probabilities are equal at both ends."""
    losses, rng = shown.evidence.losses, np.random.default_rng(shown.seed)
    known = np.flatnonzero(np.isfinite(losses))
    order = known[np.argsort(losses[known], kind="stable")]
    truth, found = shown.source.truth(), []
    for ids in np.array_split(order, _DECILES):
        if not len(ids):
            continue
        noise_prob = shown.evidence.noise_prob[ids]
        chosen = rng.choice(ids, min(_PAIRS_OF_EACH, len(ids)), replace=False)
        pairs = []
        for example_id in chosen[np.argsort(losses[chosen], kind="stable")].tolist():
            with contextlib.suppress(ReadError):
                pairs.append(_pair(shown, example_id, truth))
        found.append(
            Decile(low=float(noise_prob.min()), high=float(noise_prob.max()), pairs=pairs)
        )
    return found


def _pair(shown: Shown, example_id: int, truth: np.ndarray | None) -> AuditedPair:
    evidence, caption = shown.evidence, shown.source.caption(example_id)
    picture = shown.source.picture(shown.source.image_id(example_id))
    missing = evidence.missing(np.array([example_id]), pa.array([caption]))[0].as_py()
    return AuditedPair(
        example_id=example_id,
        image=to_pixels(picture, max_pixels=shown.max_pixels),
        caption=caption,
        noise_prob=float(evidence.noise_prob[example_id]),
        pair_loss=float(evidence.losses[example_id]),
        missing=missing or (),
        proposed=evidence.proposed.get(example_id, ""),
        truth=None if truth is None else TRUTH[truth[example_id]],
    )


def _shard(shown: Shown, shard) -> WorstShard:
    low, high = shard.interval
    return WorstShard(
        name=shard.shard,
        pairs=shard.pairs,
        looked_at=shard.looked_at,
        share=shard.share,
        low=low,
        high=high,
        mean=shard.mean,
        kept=keeps_shard(shard, shown.limits),
    )


def _groups(shown: Shown) -> list[CaptionGroup]:
    found = []
    heads = shown.duplicates.largest[:_GROUPS].tolist()
    for first, size in zip(heads, shown.duplicates.sizes.tolist(), strict=False):
        members = np.flatnonzero(shown.duplicates.group == first)
        captions: dict[str, None] = {}
        for example_id in members[:_SAMPLE].tolist():
            with contextlib.suppress(ReadError):
                captions.setdefault(shown.source.caption(example_id))
        noise_prob = shown.evidence.noise_prob[members]
        noise_prob = noise_prob[np.isfinite(noise_prob)]
        found.append(
            CaptionGroup(
                count=size,
                captions=list(captions)[:_CAPTIONS],
                noise_prob=float(noise_prob.mean()) if len(noise_prob) else float("nan"),
            )
        )
    return found


def _kept_pairs(shown: Shown) -> int:
    """Pairs in the shards that are kept, noisy ones included."""
    shards = shown.written.shards
    return sum(shard.pairs for shard in shards if keeps_shard(shard, shown.limits))


def artefacts(shown: Shown) -> list[Artefact]:
    """The files of an audit, with what to do with them."""
    limits, column = shown.limits, str(shown.estimated.column)
    found = [
        Artefact(
            name=PAIRS,
            purpose="a line for every pair: loss, noise probability, group of nearly identical "
            "captions, missing concepts, proposed caption",
        ),
        Artefact(
            name="/".join(shown.estimated.column.parts[-3:]),
            purpose=f"trains nlip_jax on the {shown.written.kept:,} pairs below "
            f"{limits.keep_below:g}, pair by pair",
            usage=f"--config.data.keep_column={shlex.quote(column)} "
            f"--config.data.keep_range='(0.0, {limits.keep_below:g})'",
        ),
        Artefact(
            name=SHARDS,
            purpose=f"the {shown.written.kept_shards:,} of {len(shown.written.shards):,} shards "
            f"with at most {100 * limits.shard_noise:g} % of noisy pairs, for open_clip and other "
            "readers of whole shards; the noisy pairs inside of these shards stay",
            usage=f"--train-data \"$(paste -sd '|' {SHARDS} | sed 's/|/::/g')\" "
            f"--train-num-samples {_kept_pairs(shown)}",
        ),
    ]
    if shown.written.uids is not None:
        found.append(
            Artefact(
                name=UIDS,
                purpose=f"the {shown.written.uids:,} samples with a kept pair, for DataComp's "
                "resharder, which copies them into new shards",
                usage=f"python resharder.py -i SHARDS -o NEW_SHARDS -s {UIDS}",
            )
        )
    return found
