"""The training loop, top to bottom.

Order of work at a step, which makes every kill harmless: update, log, checkpoint; then what
is due *at* the step (refresh, evaluation), which starts from the checkpoint and may be repeated.
"""

import contextlib
import dataclasses
import math
import time
from collections import Counter
from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

import jax
import numpy as np
from jax.sharding import Mesh

from nlip_jax import phases, sharding
from nlip_jax.checkpoint import Checkpointer
from nlip_jax.data.failures import KINDS
from nlip_jax.data.loading import Loader
from nlip_jax.data.order import Stream
from nlip_jax.data.pipeline import Reading, open_batches, take_row_info
from nlip_jax.data.quarantine import Quarantine
from nlip_jax.errors import Preempted, RunError
from nlip_jax.methods.base import Episode, Method
from nlip_jax.train import spikes, stop
from nlip_jax.train.joining import JoinedColumn, join_columns
from nlip_jax.train.metrics import MetricsLog, Progress
from nlip_jax.train.profile import Profiler, Trace
from nlip_jax.train.spike_log import SpikeLog
from nlip_jax.train.stalls import DeviceWatch
from nlip_jax.types import TrainState

# Steps the host may be ahead of the devices: enough to keep them busy, few enough that batches do
# not pile up. XLA's CPU client, with several devices, locks up beyond 32.
_MAX_AHEAD = 8
_MAX_UNREAD = 1000  # steps whose metrics wait on the devices where nothing else fetches them


@dataclasses.dataclass(frozen=True, kw_only=True)
class Plan:
    """When what is due, in steps; 0 means never."""

    total: int
    log_every: int
    checkpoint_every: int
    evaluate_every: int
    refresh_steps: tuple[int, ...]

    def episode(self, step: int) -> int:
        """Refreshes that are due up to and including this step."""
        return sum(refresh <= step for refresh in self.refresh_steps)

    def checkpoint_due(self, step: int) -> bool:
        """Everything that is repeated after a kill starts from a checkpoint of its own step."""
        return (
            _every(self.checkpoint_every, step)
            or step == self.total
            or step in self.refresh_steps
            or self.evaluation_due(step)
        )

    def evaluation_due(self, step: int) -> bool:
        """Evaluations during training; the final one belongs to the command."""
        return _every(self.evaluate_every, step) and 0 < step < self.total


class RowRecords(Protocol):
    """What is kept of each row beyond its step; see `OnlineLosses`."""

    def add(self, step: int, *, ids: np.ndarray, told: dict[str, jax.Array]) -> None:
        """Takes down a step; `told` are metrics `[b]` on the devices, ready to be fetched."""
        ...

    def flush(self, step: int) -> None:
        """Called before the checkpoint of a step, which must not be ahead of what is on disk."""
        ...


@dataclasses.dataclass(frozen=True, kw_only=True)
class Trainer:
    """All that the loop works with.

    Attributes:
      method: what is trained.
      step: compiled (state, batch) -> (state, metrics).
      mesh: where batches go.
      order: of the training examples.
      load: makes a row.
      reading: how rows are read.
      quarantine: takes down the examples that could not be read.
      columns: episode -> name in the batch -> what is known of all examples then.
      plan: what is due when.
      checkpointer: of the workdir.
      meta: step -> what is saved beside the arrays.
      episode: (index, state) -> what `refresh` may use.
      evaluate: (state, step) -> metrics, for evaluations during training.
      log: of this process, None on all but the first.
      peak_rate: examples/s at the peak of all devices; None where it is not known.
      trace: of which steps one is made; None for none.
      spikes: of this run; None where nobody takes them down.
      stops_at_non_finite: whether a loss or a gradient that is not finite ends the run; False where
        the step leaves such updates out.
      rows: takes down what the step tells of each row; None where nobody keeps it.
    """

    method: Method
    step: Callable
    mesh: Mesh
    order: Stream
    load: Loader
    reading: Reading
    quarantine: Quarantine
    columns: Callable[[int], dict[str, JoinedColumn]]
    plan: Plan
    checkpointer: Checkpointer
    meta: Callable[[int], dict[str, Any]]
    episode: Callable[[int, TrainState], Episode]
    evaluate: Callable[[TrainState, int], dict[str, float]]
    log: MetricsLog | None
    peak_rate: float | None = None
    trace: Trace | None = None
    spikes: SpikeLog | None = None
    stops_at_non_finite: bool = True
    rows: RowRecords | None = None


def train(trainer: Trainer, state: TrainState) -> TrainState:
    """Trains from the state's step to the end of the plan.

    Raises:
      Preempted: the run was asked to stop; a checkpoint of the last step is on disk.
      RunError: the loss or a gradient is not finite, or too many spikes were skipped.
    """
    # Host-side copies: asking the devices would wait for the step that is under way.
    plan, step, episode = trainer.plan, int(state.step), int(state.episode)
    progress = Progress(
        total=plan.total,
        batch_size=trainer.order.batch_size,
        reading=trainer.reading,
        devices=trainer.mesh.size,
        peak_rate=trainer.peak_rate,
        visible=trainer.log is not None,
    )
    profiler = Profiler(trainer.trace, start=step, say=progress.say)
    opened = open_batches(
        order=trainer.order,
        load=trainer.load,
        start=step,
        stop=plan.total,
        reading=trainer.reading,
    )
    with (
        opened as batches,
        contextlib.closing(DeviceWatch()) as devices,
        contextlib.closing(profiler),
    ):
        columns = trainer.columns(episode)
        recent: list[_Done] = []  # steps since the last log, their metrics on the devices
        progress.start(step)
        phases.enter("train", step=step)
        while True:
            # --- what is due at this step, after its checkpoint -----------------------------------
            if episode < plan.episode(step):
                episode += 1
                progress.say(f"step {step}: episode {episode} begins")
                state = _refresh(trainer, state, step=step, episode=episode)
                columns = trainer.columns(episode)
                progress.start(step)
            if plan.evaluation_due(step):
                progress.say(f"step {step}: evaluating")
                phases.enter("evaluate", step=step)
                metrics = trainer.evaluate(state, step)
                if trainer.log is not None:
                    trainer.log.write(step, metrics)
                phases.enter("train", step=step)
                progress.start(step)
            if step == plan.total:
                return state
            if stop.requested(step):
                _fetch(trainer, recent, say=progress.say)  # not finite: no state to go on from
                progress.say(f"step {step}: saving a checkpoint")
                _save(trainer, state, step=step)
                trainer.checkpointer.wait()
                raise Preempted(
                    f"stopped as asked at step {step} of {plan.total}; "
                    "run the same command again to go on"
                )

            # --- batch ----------------------------------------------------------------------------
            asked = time.perf_counter()
            batch = next(batches)
            arrived = time.perf_counter()
            rows = take_row_info(batch)
            trainer.quarantine.add(rows)
            batch = sharding.to_devices(join_columns(batch, rows.ids, columns), trainer.mesh)
            ready = time.perf_counter()
            progress.data.add(
                waited=devices.idle(asked, arrived),
                copied=devices.idle(arrived, ready),
                stages=rows.stage_seconds,
            )

            # --- update ---------------------------------------------------------------------------
            with profiler.step(step + 1), jax.transfer_guard("disallow"):
                state, metrics = trainer.step(state, batch)
            devices.follow(metrics)
            step += 1
            recent.append(_Done(step, metrics, rows.ids))
            if len(recent) > _MAX_AHEAD:
                jax.block_until_ready(recent[-1 - _MAX_AHEAD][:2])

            # --- log ------------------------------------------------------------------------------
            log_due = _every(plan.log_every, step) or step == plan.total
            if log_due or plan.checkpoint_due(step) or len(recent) == _MAX_UNREAD:
                values = _fetch(trainer, recent, say=progress.say)
                recent.clear()
                if log_due:
                    speeds = progress.report(step, loss=values["train/loss"])
                    failed = {"data/failed_examples": failures(trainer.quarantine).total()}
                    if trainer.log is not None:
                        trainer.log.write(step, values | failed | speeds)
            if profiler.end_step(step, metrics):
                progress.start(step)

            # --- checkpoint -----------------------------------------------------------------------
            if plan.checkpoint_due(step):
                _save(trainer, state, step=step)


def _save(trainer: Trainer, state: TrainState, *, step: int) -> None:
    """A checkpoint, and before it what a run that goes on from it will ask for."""
    if trainer.rows is not None:
        trainer.rows.flush(step)
    trainer.checkpointer.save(step, state=state, meta=trainer.meta(step))


def _refresh(trainer: Trainer, state: TrainState, *, step: int, episode: int) -> TrainState:
    """The method's hook, from a checkpoint that is on disk: a killed one starts again there."""
    trainer.checkpointer.wait()
    phases.enter("refresh", step=step, episode=episode)
    state = trainer.method.refresh(state, trainer.episode(episode, state))
    phases.enter("train", step=step)
    return state.replace(
        episode=jax.device_put(np.int32(episode), state.episode.sharding),
        loss_watch=spikes.forget(state.loss_watch),
    )


def failures(quarantine: Quarantine) -> Counter:
    """Examples that could not be read in training so far, by kind, on all processes together."""
    if jax.process_count() == 1:
        return quarantine.counts
    totals = sharding.sum_over_processes(
        np.array([quarantine.counts[kind] for kind in KINDS], np.int64)
    )
    return Counter({kind: int(n) for kind, n in zip(KINDS, totals, strict=True) if n})


class _Done(NamedTuple):
    """A step, its metrics and the examples of this process's rows."""

    step: int
    metrics: dict
    example_ids: np.ndarray


def _fetch(
    trainer: Trainer, recent: list[_Done], *, say: Callable[[str], None]
) -> dict[str, float]:
    """Metrics of the newest step, if any, after a look at all of them; rows go to their records."""
    told = [{name: x for name, x in done.metrics.items() if np.ndim(x)} for done in recent]
    if trainer.rows is not None:
        jax.tree.map(lambda x: x.copy_to_host_async(), told)  # all on their way at once
    scalars = [{n: x for n, x in done.metrics.items() if not np.ndim(x)} for done in recent]
    fetched = jax.device_get(scalars)
    for done, metrics, by_row in zip(recent, fetched, told, strict=True):
        if trainer.spikes is not None:
            found = trainer.spikes.add(
                done.step,
                metrics,
                episode=trainer.plan.episode(done.step - 1),
                example_ids=done.example_ids,
            )
            if found:
                say(found)
        if trainer.stops_at_non_finite:
            _check_finite(done.step, metrics, trainer.checkpointer)
        if trainer.rows is not None:
            trainer.rows.add(done.step, ids=done.example_ids, told=by_row)
    if trainer.spikes is not None:
        trainer.checkpointer.keep_before(trainer.spikes.newest)
    newest = fetched[-1] if fetched else {}
    return {f"train/{name}": float(value) for name, value in newest.items()}


def _check_finite(step: int, metrics: dict[str, np.ndarray], checkpointer: Checkpointer) -> None:
    """Refuses to go on from numbers that are not finite."""
    for name in ("loss", "grad_norm"):
        if not math.isfinite(metrics[name]):
            checkpointer.wait()
            last = checkpointer.latest_step()
            raise RunError(
                f"{name} is {metrics[name]} at step {step}; the last good checkpoint is "
                f"{'none' if last is None else checkpointer.directory / str(last)}; train "
                "again in another --workdir with a lower config.optimizer.learning_rate"
            )


def _every(period: int, step: int) -> bool:
    return period > 0 and step % period == 0
