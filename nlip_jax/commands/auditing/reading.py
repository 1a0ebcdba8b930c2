"""Reads captions and names of all examples, by several processes, until it is time to stop."""

from collections.abc import Callable

import numpy as np

from nlip_jax.commands.prepare_command import ProgressLine
from nlip_jax.data.listing import PART, Listing, ListPart
from nlip_jax.data.members import Members
from nlip_jax.data.prepare.tasks import run_tasks
from nlip_jax.data.source import Source

_FEW = 1 << 17  # examples that are read before worker processes would have started


def list_examples(
    listing: Listing,
    source: Source,
    members: Members,
    *,
    processes: int,
    seed: int = 0,
    should_stop: Callable[[], bool] = lambda: False,
) -> None:
    """Makes the parts of a list that are not there yet, as many as there is time for.

    Args:
      listing: where they go.
      source: the examples.
      members: those of them that are listed.
      processes: that work; 0 works in this one.
      seed: of the order of the parts: what is not read in time is left out at random.
      should_stop: whether to begin no further part.
    """
    listing.folder.mkdir(parents=True, exist_ok=True)
    done = set(listing.finished())
    order = np.random.default_rng(seed).permutation(listing.num_parts)
    todo = [part for part in order.tolist() if part not in done]
    before, total = len(done) * PART, listing.num_ids
    show = ProgressLine(what="captions")
    show("reading", before, total)
    for _ in run_tasks(
        ListPart(listing, source, members),
        todo,
        processes=processes if len(todo) * PART > _FEW else 0,
        on_progress=lambda count: show("reading", min(before + count, total), total),
        should_stop=should_stop,
    ):
        pass
