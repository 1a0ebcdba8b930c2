"""Repeats the steps of a run from a checkpoint, and writes nothing into its folder."""

import dataclasses
import functools
import json
from collections import Counter
from typing import Any

import jax
import numpy as np

from nlip_jax import sharding
from nlip_jax.checkpoint import Checkpointer
from nlip_jax.columns import ColumnVersion
from nlip_jax.commands.session import Session
from nlip_jax.commands.train_command import open_columns
from nlip_jax.data.pipeline import Reading, RowInfo, open_batches, take_row_info
from nlip_jax.errors import UsageError
from nlip_jax.methods.base import Episode
from nlip_jax.train.joining import join_columns
from nlip_jax.train.loop import Trainer, train
from nlip_jax.train.step import compile_step
from nlip_jax.types import Batch, PyTree, TrainState


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Repeated:
    """A step that was done again.

    Attributes:
      metrics: what the compiled step told of it.
      example_ids: [b] int64, of the rows of the global batch.
      epochs: [b] int64, how often each was read before.
      pair_losses: [b] float32, nats, without dropout; None for a method that does not tell them.
    """

    metrics: dict[str, float]
    example_ids: np.ndarray
    epochs: np.ndarray
    pair_losses: np.ndarray | None


def find_checkpoint(run: Session, *, step: int) -> int | None:
    """Step of the newest checkpoint that a step can be repeated from; None: from the start."""
    directory = run.workdir / "checkpoints"
    if not directory.is_dir():
        return None
    checkpointer = Checkpointer(directory, only_reads=True)
    try:
        return checkpointer.latest_step(before=step)
    finally:
        checkpointer.close()


def repeat(run: Session, *, step: int, checkpoint: int | None) -> Repeated:
    """Does all steps after a checkpoint again, up to and including the one that is asked for.

    Args:
      run: whose columns and checkpoints are read.
      step: the last one to do, from 1.
      checkpoint: step of the checkpoint to begin with; None for a fresh state.

    Raises:
      UsageError: what the run found out between its episodes is not there.
      RunError: the checkpoint cannot be read.
    """
    reading = dataclasses.replace(run.mapper.reading, workers=0)  # sooner there for a few batches
    abstract = run.factory.abstract()
    # Before the compiler takes its time: a run that is going on clears old checkpoints away.
    state = (
        run.factory.create(run.given_params())
        if checkpoint is None
        else _restore(run, checkpoint, abstract)
    )
    compiled = compile_step(run.step, state=abstract, batch=run.batch, mesh=run.mesh)
    state = train(_trainer(run, compiled=compiled, stop=step - 1, reading=reading), state)
    batch, rows = _read(run, step=step, reading=reading)
    pair_losses = _pair_losses(run, state, batch)
    _, metrics = compiled(state, batch)
    order = dataclasses.replace(run.order, rows=np.arange(run.config.batch_size))
    return Repeated(
        metrics={name: float(value) for name, value in metrics.items() if not value.ndim},
        example_ids=sharding.rows_of_all(
            rows.ids, rows=run.order.rows, batch_size=run.config.batch_size
        ),
        epochs=order.block(step - 1).epochs,
        pair_losses=pair_losses,
    )


def _restore(run: Session, step: int, abstract: PyTree) -> TrainState:
    checkpointer = Checkpointer(run.workdir / "checkpoints", only_reads=True)
    try:
        return checkpointer.restore(step, abstract=abstract).state
    finally:
        checkpointer.close()


def _trainer(run: Session, *, compiled: Any, stop: int, reading: Reading) -> Trainer:
    """The loop of the run, without anything that it would write."""
    quiet = {"log_every": 0, "checkpoint_every": 0, "evaluate_every": 0}
    return Trainer(
        method=run.method,
        step=compiled,
        mesh=run.mesh,
        order=run.order,
        load=run.load,
        reading=reading,
        quarantine=_NotListed(),
        columns=functools.partial(open_columns, run),
        plan=dataclasses.replace(run.plan, total=stop, **quiet),
        checkpointer=_NotSaved(),
        meta=lambda step: {},
        episode=lambda index, state: _recorded(run, index),
        evaluate=lambda state, step: {},
        log=None,
        stops_at_non_finite=False,
    )


class _NotSaved:
    """Stands for the checkpoints of a run that makes none."""

    def save(self, step: int, *, state: PyTree, meta: dict[str, Any]) -> None:
        """Does nothing."""

    def wait(self) -> None:
        """Has nothing to wait for."""


class _NotListed:
    """Stands for the quarantine where all that cannot be read was listed before."""

    def __init__(self) -> None:
        self.counts = Counter()

    def add(self, rows: RowInfo) -> None:
        """Does nothing."""


def _recorded(run: Session, index: int) -> Episode:
    """An episode that finds finished what `refresh` asks for."""

    def column(name: str) -> ColumnVersion:
        found = run.column(name, index)
        done = found.directory / "DONE"
        if not done.exists():
            raise UsageError(
                f"{found.directory} is not finished: the run has not come to episode {index} yet"
            )
        # Whatever it was computed from: this run trained with it.
        return dataclasses.replace(found, key=json.loads(done.read_text())["key"])

    return Episode(
        index=index,
        map_examples=lambda name, function, state, join=(): column(name).read(),
        column=column,
        recent_losses=lambda name: column(name).read(),
    )


def _read(run: Session, *, step: int, reading: Reading) -> tuple[Batch, RowInfo]:
    """The batch of a step, on the devices, and what is known of this process's rows."""
    opened = open_batches(
        order=run.order, load=run.load, start=step - 1, stop=step, reading=reading
    )
    with opened as batches:
        batch = next(batches)
    rows = take_row_info(batch)
    columns = open_columns(run, run.plan.episode(step - 1))
    return sharding.to_devices(join_columns(batch, rows.ids, columns), run.mesh), rows


def _pair_losses(run: Session, state: TrainState, batch: Batch) -> np.ndarray | None:
    everywhere = sharding.replicated(run.mesh)
    of_all = jax.jit(run.method.pair_losses, out_shardings=everywhere)
    found = of_all(state.params, state, batch)
    return None if found is None else np.asarray(found)
