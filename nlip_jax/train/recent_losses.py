"""What training saw of each example lately, as a column: the estimate without a pass of its own."""

import dataclasses
import logging
from collections.abc import Iterator
from pathlib import Path

import jax
import numpy as np

from nlip_jax import phases, sharding
from nlip_jax.columns import ColumnVersion, own_range
from nlip_jax.data.members import Members
from nlip_jax.train.online_losses import fragments

_LOG = logging.getLogger(__name__)

# Losses are added up as whole multiples of this: sums are exact, so they do not depend on the order
# of the fragments, which is another after a kill and on another number of processes.
_UNIT = 2.0**-20
_MOST = 2.0**20  # nats, of a loss. Float64 has room for 8,000 of those, or for 10^8 of 100 nats


@dataclasses.dataclass(frozen=True)
class MeanLosses:
    """What training saw of the examples [start, stop).

    Attributes:
      values: `[stop - start]` float32, the mean loss of each; NaN where it was not seen.
      missing_steps: of the window that no fragment knows of.
    """

    values: np.ndarray
    missing_steps: int


def mean_losses(directory: Path, window: range, *, start: int, stop: int) -> MeanLosses:
    """The mean loss of each example over the steps of a window.

    No correction for training going on in between: over two epochs it moves the losses less than
    chance does (augmentation, the other pairs of the batch), and noisy ones up, if anything.

    Args:
      directory: of the fragments.
      window: steps.
      start: first id.
      stop: id to stop before.

    Returns:
      The same bits whatever the fragments' order and number.
    """
    sums = np.zeros(stop - start, np.float64)
    counts = np.zeros(stop - start, np.int32)
    known: set[int] = set()
    for steps, ids, losses in _read(directory, window):
        known.update(steps.tolist())
        mine = (ids >= start) & (ids < stop)
        places = ids[mine].astype(np.int64) - start
        units = np.rint(np.clip(losses[mine], -_MOST, _MOST).astype(np.float64) / _UNIT)
        np.add.at(sums, places, units)
        np.add.at(counts, places, 1)
    values = np.full(stop - start, np.nan, np.float32)
    seen = counts > 0
    values[seen] = sums[seen] / counts[seen] * _UNIT
    return MeanLosses(values=values, missing_steps=len(window) - len(known))


def recent_losses(
    column: ColumnVersion,
    *,
    directory: Path,
    window: range,
    before: np.ndarray | None,
    members: Members,
) -> np.ndarray:
    """Makes a column of what training saw lately; finished, it is only read.

    An example that the window did not see keeps its last value. So one that shows a synthetic text
    in place of a noisy one stays noisy, and the mixture goes on seeing both kinds.

    Args:
      column: to be made.
      directory: of the fragments.
      window: steps.
      before: `[m]` values of the last version for the first m examples; None where there is none.
      members: the examples that take part.

    Returns:
      `[n]` float32 mean loss of each example; NaN where it was never seen.
    """
    if column.is_done:
        return column.read()
    phases.enter("online_losses", first=window.start, last=window.stop - 1)
    start, stop = own_range(members.num_ids)
    found = mean_losses(directory, window, start=start, stop=stop)
    values, seen = found.values, np.isfinite(found.values)
    if before is not None:
        last = np.asarray(before[start:stop])
        values[: len(last)] = np.where(seen[: len(last)], values[: len(last)], last)
    known = np.isfinite(values)
    unknown = members.mask(start, stop) & ~known
    counts = sharding.sum_over_processes(
        np.array([seen.sum(), (known & ~seen).sum(), unknown.sum()], np.int64)
    )
    meta = dict(zip(("seen", "kept", "unknown"), counts.tolist(), strict=True))
    if jax.process_index() == 0:
        _describe(window, missing_steps=found.missing_steps, **meta)
    column.prepare()
    column.write_dense(values, meta=meta | {"first": window.start, "last": window.stop - 1})
    return column.read()


def _describe(window: range, *, missing_steps: int, seen: int, kept: int, unknown: int) -> None:
    _LOG.info(
        "losses of %d pairs seen in steps %d to %d; %d others keep their last one, %d were never "
        "seen and count as clean",
        *(seen, window.start, window.stop - 1, kept, unknown),
    )
    if missing_steps:
        _LOG.warning(
            "the losses of %d of these %d steps are gone: the run went on from before an estimate "
            "that was made; pairs of those steps count as not seen",
            *(missing_steps, len(window)),
        )


def _read(directory: Path, window: range) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Of each fragment, the steps within the window, and the ids and losses of their rows."""
    for fragment in fragments(directory):
        if fragment.first >= window.stop or fragment.last < window.start:
            continue
        with np.load(fragment.path) as arrays:
            steps, rows = arrays["steps"], arrays["rows"]
            inside = (steps >= window.start) & (steps < window.stop)
            of_rows = np.repeat(inside, rows)
            yield steps[inside], arrays["ids"][of_rows], arrays["losses"][of_rows]
