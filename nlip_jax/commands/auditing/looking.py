"""The pass over all pairs: the loss of each, and the concepts that its image shows."""

import dataclasses
from collections.abc import Callable

import jax.numpy as jnp
import numpy as np

from nlip_jax.commands.auditing.fragments import Kept
from nlip_jax.commands.auditing.model import Model
from nlip_jax.data.members import Members
from nlip_jax.data.pipeline import RowInfo
from nlip_jax.data.source import Source
from nlip_jax.methods.clip import Clip
from nlip_jax.methods.retriever import Retriever
from nlip_jax.types import Array, Batch, PyTree


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Look:
    """What is computed of a batch of pairs.

    Attributes:
      method: of the model.
      retriever: of concepts; None: nobody looks for any.
    """

    method: Clip
    retriever: Retriever | None

    @property
    def results(self) -> tuple[str, ...]:
        """What it gives."""
        return ("pair_loss", *(("concepts",) if self.retriever else ()))

    def prepare(self, model: Model) -> PyTree:
        """The first argument."""
        given = {"state": model.state}
        if self.retriever is not None:
            given["retrieval"] = self.retriever.prepare(self.method, model.variables)
        return given

    def __call__(self, given: PyTree, batch: Batch) -> dict[str, Array]:
        """Losses `[b]` nats, and concepts `[b, k]`, their numbers from 1, 0 for none."""
        found = {"pair_loss": self.method.plain_pair_loss(given["state"], batch)}
        if self.retriever is not None:
            numbers = self.retriever.find(self.method, given["retrieval"], batch["image"])
            found["concepts"] = (numbers + 1).astype(jnp.int32)
        return found


def look_at_pairs(
    look: Look,
    model: Model,
    *,
    source: Source,
    members: Members,
    seed: int,
    kept: Kept,
    is_over: Callable[[], bool],
    on_rows: Callable[[RowInfo], None],
    on_progress: Callable[[int, int], None],
) -> bool:
    """Goes through the pairs in seeded random order, as far as there is time.

    Neighbours on disk would be hard negatives of one another. What was looked at before is not
    looked at again; a pair that cannot be read has the loss NaN.

    Args:
      look: what is computed.
      model: by whom.
      source: the pairs.
      members: those that are audited.
      seed: of the order.
      kept: where results go.
      is_over: asked after every batch.
      on_rows: told of every batch of rows.
      on_progress: told how many of how many pairs were looked at.

    Returns:
      Whether all pairs were looked at.

    Raises:
      Preempted: the audit was asked to stop; what was looked at is on disk.
    """
    if kept.is_done:
        return True
    kept.prepare()
    order = model.mapper.order(members=members, batch_size=model.batch_size, seed=seed)
    done = len(kept.ids())
    batches = model.mapper.stream(
        look,
        look.prepare(model),
        load=model.load(source),
        order=order,
        start=done // model.batch_size if done < len(members) else order.num_batches,
    )
    try:
        for rows, found in batches:
            on_rows(rows)
            values = {name: of_batch[rows.valid] for name, of_batch in found.items()}
            kept.add(rows.due[rows.valid], values)
            done += int(rows.valid.sum())
            on_progress(done, len(members))
            if is_over():
                break
    finally:
        batches.close()
        kept.flush()
    if done < len(members):
        return False
    for column in kept.columns.values():
        column.merge(num_examples=members.num_ids, present=members.mask)
    return True


def losses_of(kept: Kept, *, num_ids: int) -> np.ndarray:
    """`[num_ids]` float32 nats, NaN where none is known."""
    return kept.dense("pair_loss", num_ids=num_ids, like=np.array(np.nan, np.float32))


def concepts_of(kept: Kept, look: Look, *, num_ids: int) -> np.ndarray:
    """`[num_ids, k]` int32, numbers of concepts from 1, 0 for none."""
    nothing = np.zeros(look.retriever.top_k, np.int32)
    return kept.dense("concepts", num_ids=num_ids, like=nothing)
