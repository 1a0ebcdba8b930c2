"""An audit from beginning to end; the same command again goes on with what was not finished."""

import dataclasses
import functools
import math
import os
import time
from collections.abc import Callable, Mapping

import numpy as np
from ml_collections import ConfigDict

from nlip_jax import __version__, build, phases
from nlip_jax.build.nlip import make_estimation
from nlip_jax.build.sources import index_folder, indexed_sets
from nlip_jax.commands import compilation_cache
from nlip_jax.commands import workdir as workdirs
from nlip_jax.commands.auditing import model as models
from nlip_jax.commands.auditing.after import Embedded, Rules, finish
from nlip_jax.commands.auditing.budget import Budget, is_over
from nlip_jax.commands.auditing.concepts import concept_words, make_retriever
from nlip_jax.commands.auditing.folder import Folder
from nlip_jax.commands.auditing.fragments import Kept
from nlip_jax.commands.auditing.looking import Look, concepts_of, look_at_pairs, losses_of
from nlip_jax.commands.auditing.missing import MissingConcepts
from nlip_jax.commands.auditing.model import Model
from nlip_jax.commands.auditing.proposing import (
    COLUMN,
    noisiest,
    propose_captions,
    read_proposals,
)
from nlip_jax.commands.auditing.reading import list_examples
from nlip_jax.commands.auditing.request import Request
from nlip_jax.commands.auditing.show import Labels
from nlip_jax.commands.auditing.training import small_config, train_small
from nlip_jax.commands.auditing.work import Progress, Work
from nlip_jax.commands.prepare_command import ProgressLine
from nlip_jax.data.listing import PART
from nlip_jax.data.members import Members
from nlip_jax.data.quarantine import Quarantine
from nlip_jax.data.source import Source
from nlip_jax.errors import UsageError
from nlip_jax.estimators.gaussian_mixture import FitResult
from nlip_jax.report.formats import format_seconds
from nlip_jax.sharding import num_row_shards
from nlip_jax.train import stop

_TRAINING = "train a small model"
_EVENTS = "events.jsonl"
_HARDLY = 0.75  # of the loss of guessing; a model that loses as much tells little
_APART = 1.0  # deviations between two kinds of pairs, at least
_NOISY = 0.5  # noise probability from which a caption is proposed


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Audit:
    """An audit under way.

    Attributes:
      request: what was asked for.
      budget: its time.
      folder: where it works.
      source: the data.
      members: the examples that are audited.
      work: the account.
    """

    request: Request
    budget: Budget
    folder: Folder
    source: Source
    members: Members
    work: Work = dataclasses.field(default_factory=Work)

    @functools.cached_property
    def quarantine(self) -> Quarantine:
        """Lists what cannot be read, however much that is."""
        return Quarantine(
            self.folder.path / "quarantine.jsonl", source=self.source, max_bad_fraction=1.0
        )


def audit(request: Request) -> dict[str, float]:
    """Does what was asked for, as far as there is time.

    Returns:
      The numbers of the audit by name.

    Raises:
      UsageError: the data, the run or the folder are not to be used.
      Preempted: it was asked to stop; the same command goes on.
      RunError: too few pairs could be looked at.
    """
    budget = Budget(begun=time.monotonic(), seconds=request.seconds)
    stop.install_handlers(after="this batch")
    given = _open_run(request) if request.run else None
    with workdirs.lock(request.workdir):
        source = build.open_training_source(
            request.data, request.run if request.own_data else request.workdir
        )
        if source.draws_captions:
            raise UsageError(
                f"config.data.source={request.data.data.source!r} with captions='sample' gives an "
                "image another caption each epoch, so there are no lasting pairs to audit: set "
                "captions='expand'"
            )
        started = Audit(
            request=request,
            budget=budget,
            folder=Folder(
                path=request.workdir,
                source=source,
                made_of=_made_of(request, source, given),
            ),
            source=source,
            members=build.make_draw(request.data, source=source).members,
        )
        started.folder.claim()
        phases.start_log(request.workdir / _EVENTS)
        compilation_cache.use(request.data.compilation_cache, request.workdir)
        _list(started)
        return _look_and_finish(started, given or _train(started))


def _open_run(request: Request) -> Model:
    """The model of the run that was named."""
    config = request.own.copy_and_resolve_references()
    with config.unlocked():  # how the work is done is for the audit to say
        config.mesh, config.evaluation = request.data.mesh, request.data.evaluation
        config.captions = request.data.captions
    run = models.check_run(config, request.run)
    return models.restore(run, config, step=request.step, data=request.data)


def _made_of(request: Request, source: Source, given: Model | None) -> dict[str, str]:
    kept, concepts = request.data.data.keep_column, request.data.concepts
    mined = f"mined by {concepts.tagger}, up to {concepts.max_words} words"
    return {
        "data": source.fingerprint,
        "part": f"{kept} {tuple(request.data.data.keep_range)}" if kept else "all",
        "model": f"{given.exact} of step {given.step}" if given else "trained here",
        "concepts": f"{concepts.top_k} of {concepts.vocabulary or mined}, {concepts.prompt}"
        if concepts.top_k
        else "none",
        "seed": str(request.data.seed),
        "version": __version__,
    }


def _list(audit: Audit) -> None:
    listing, total = audit.folder.listing, len(audit.members)
    with audit.work.stage("read captions") as progress:
        list_examples(
            listing,
            audit.source,
            audit.members,
            processes=os.cpu_count() or 1,
            seed=audit.request.data.seed,
            should_stop=lambda: stop.requested()
            or audit.budget.reading_ends(len(listing.finished()) * PART),
        )
        stop.check()
        done = listing.num_listed()
        progress.done = _of(done, total, "captions")
        progress.finished = done == total


def _train(audit: Audit) -> Model:
    """A small model of the data; trained further only where an audit was stopped before its end."""
    request, folder = audit.request, audit.folder
    with audit.work.stage(_TRAINING) as progress:
        mesh = build.make_mesh(request.data, trains=False)
        config, steps = small_config(
            request.data,
            num_examples=len(audit.members),
            index=_index_of(request),
            row_shards=num_row_shards(mesh),
        )
        num_listed = folder.listing.num_listed()
        step = train_small(
            config,
            folder.model,
            steps=steps,
            ends=lambda seconds: audit.budget.training_ends(
                num_listed=num_listed, num_pairs=len(audit.members), pair_seconds=seconds
            ),
        )
        stop.install_handlers(after="this batch")
        phases.start_log(request.workdir / _EVENTS)
        pairs = step * config.batch_size / len(audit.members)
        progress.done = f"{step:,} of {steps:,} steps, {pairs:.1f} times through the data"
        progress.finished = step == steps
        run = models.check_run(config, folder.model)
        return models.restore(run, config, step=step, data=request.data)


def _index_of(request: Request) -> str:
    """The folder of the index of the audited data; empty where they have none or name their own."""
    folder = index_folder(request.workdir, "data").absolute()
    config = request.data.copy_and_resolve_references()
    config.evaluators = ConfigDict()
    of_data = [path.absolute() for path in indexed_sets(config, request.workdir)]
    return str(folder) if of_data == [folder] else ""


def _look_and_finish(audit: Audit, model: Model) -> dict[str, float]:
    request, folder, num_ids = audit.request, audit.folder, len(audit.source)
    with audit.work.stage("find concepts") as progress:
        words = concept_words(request.data, listing=folder.listing, folder=folder.path)
        progress.done = f"{len(words):,} words and phrases in the captions"
    look = Look(method=model.method, retriever=make_retriever(words, request.data, model))
    made_of = [model.exact, model.batch_size, request.data.seed]
    kept = Kept(folder.columns(*look.results, made_of=[*made_of, words]))
    with audit.work.stage("look at pairs") as progress:
        finished = look_at_pairs(
            look,
            model,
            source=audit.source,
            members=audit.members,
            seed=request.data.seed,
            kept=kept,
            is_over=functools.partial(
                is_over,
                audit.budget.pass_ends(
                    num_listed=folder.listing.num_listed(), proposes=model.can_caption
                ),
            ),
            on_rows=functools.partial(audit.quarantine.add, in_training=False),
            on_progress=_progress("looking", "pairs"),
        )
        losses = losses_of(kept, num_ids=num_ids)
        looked_at = len(audit.members) if finished else len(kept.ids())
        progress.done = _of(looked_at, len(audit.members), "pairs")
        progress.finished = finished
    missing = None
    if look.retriever is not None:
        missing = MissingConcepts(words, concepts_of(kept, look, num_ids=num_ids))
    propose = _proposer(audit, model, losses, made_of) if model.can_caption else None
    embedded = Embedded(
        folder=folder.path,
        source=audit.source,
        members=audit.members,
        listing=folder.listing,
        losses=losses,
        looked_at=looked_at,
        made_of=[folder.made_of, made_of],
        missing=missing,
        propose=propose,
    )
    rules = Rules(
        **make_estimation(request.data, mesh=model.run.mesh),
        limits=request.limits,
        near=request.near,
        max_pixels=request.data.data.max_pixels,
        seed=request.data.seed,
    )
    labels = functools.partial(_labels, audit, model)
    return finish(embedded, rules, work=audit.work, labels=labels)


def _proposer(
    audit: Audit, model: Model, losses: np.ndarray, made_of: list
) -> Callable[[np.ndarray, Progress], Mapping[int, str]]:
    """Captions for noisy pairs, the noisiest first."""
    decoding = model.config.captions.to_dict()
    kept = Kept(audit.folder.columns(COLUMN, made_of=[*made_of, repr(decoding)]))
    ends = audit.budget.proposing_ends(num_listed=audit.folder.listing.num_listed())

    def propose(noise_prob: np.ndarray, progress: Progress) -> Mapping[int, str]:
        wanted = noisiest(np.where(noise_prob >= _NOISY, losses, np.nan))
        done = propose_captions(
            model,
            source=audit.source,
            ids=wanted,
            kept=kept,
            is_over=functools.partial(is_over, ends),
            on_rows=functools.partial(audit.quarantine.add, in_training=False),
            on_progress=_progress("captioning", "noisy pairs"),
        )
        progress.done = _of(done, len(wanted), "noisy pairs")
        progress.finished = done == len(wanted)
        return read_proposals(kept, model, wanted=wanted)

    return propose


def _labels(audit: Audit, model: Model, fitted: FitResult) -> Labels:
    request, work = audit.request, audit.work
    notes, left = [], [stage for stage in work.unfinished if stage.name != _TRAINING]
    if left:
        notes.append(
            f"Not finished within {format_seconds(request.seconds)}: "
            f"{'; '.join(f'{stage.name}: {stage.done}' for stage in left)}. The same command again "
            "goes on, and --minutes gives it more time."
        )
    if request.run is None:
        cut = next((stage.done for stage in work.unfinished if stage.name == _TRAINING), "")
        notes.append(
            "The pairs were judged by a small model that was trained on these very data"
            + (f", for which there was too little time ({cut})" if cut else "")
            + ". A better one judges better: train one and name it with --run"
            + (", or audit with more --minutes in another --workdir." if cut else ".")
        )
    notes += _doubts(fitted, batch_size=model.batch_size)
    whose = f"the run {request.run}" if request.run else "a small model"
    return Labels(
        title=f"Audit of {request.name}",
        description=f"{len(audit.members):,} pairs, judged by {whose}",
        notes=notes,
        provenance={
            "data": f"{request.data.data.source}, {audit.source.fingerprint}",
            "model": f"{model.run.checkpoints.parent}, step {model.step}",
            "parameters": model.exact,
            "seed": str(request.data.seed),
            "time": format_seconds(request.seconds),
            "nlip_jax": __version__,
        },
    )


def _doubts(fitted: FitResult, *, batch_size: int) -> list[str]:
    """Why the estimate should not be relied on, if there is a reason."""
    mixture, chance = fitted.mixture, math.log(batch_size)
    clean = float(mixture.low + (mixture.high - mixture.low) * mixture.mean[0])
    if fitted.degenerate or clean > _HARDLY * chance:
        return [
            f"The model hardly tells images and texts apart: even clean pairs lose {clean:.2f} "
            f"nats, and guessing among {batch_size} loses {chance:.2f}. Its judgement of single "
            "pairs is weak; a model that was trained longer judges better."
        ]
    distance = float((mixture.mean[1] - mixture.mean[0]) / np.sqrt(np.mean(mixture.variance)))
    if distance < _APART:
        return [
            f"The losses show no two kinds of pairs: the fitted components are {distance:.1f} "
            "deviations apart. The order of the pairs may tell something, their noise "
            "probabilities do not."
        ]
    return []


def _of(done: int, total: int, what: str) -> str:
    share = f" ({100 * done / total:.1f} %)" if 0 < done < total else ""
    return f"{done:,} of {total:,} {what}{share}"


def _progress(stage: str, what: str) -> Callable[[int, int], None]:
    line = ProgressLine(what=what)
    return lambda done, total: line(stage, done, total)
