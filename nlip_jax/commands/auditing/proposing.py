"""Captions that the model would give to the noisiest pairs."""

import dataclasses
from collections.abc import Callable

import numpy as np

from nlip_jax.commands.auditing.fragments import Kept
from nlip_jax.commands.auditing.model import Model
from nlip_jax.data.loading import LoadImage
from nlip_jax.data.pipeline import RowInfo
from nlip_jax.data.source import Source
from nlip_jax.data.text.tokenizer import PAD
from nlip_jax.types import Array, Batch, PyTree

COLUMN = "proposed_caption"


@dataclasses.dataclass(frozen=True, eq=False)
class _Chosen:
    """Some examples in an order of their own, as `Pass` takes them."""

    ids: np.ndarray
    num_ids: int

    def __len__(self) -> int:
        return len(self.ids)

    def take(self, places: np.ndarray) -> np.ndarray:
        """The examples at some places."""
        return self.ids[places]


@dataclasses.dataclass(frozen=True, eq=False)
class _LoadImageOf:
    """The image of an example."""

    source: Source
    load: LoadImage

    def __call__(self, example_id: int, epoch: int) -> dict[str, np.ndarray]:
        return self.load(self.source.image_id(example_id), epoch)


@dataclasses.dataclass(frozen=True, eq=False)
class _Caption:
    """The captions of a batch of images."""

    caption: Callable[[PyTree, Array], Array]

    def __call__(self, variables: PyTree, batch: Batch) -> dict[str, Array]:
        return {COLUMN: self.caption(variables, batch["image"])}


def noisiest(losses: np.ndarray) -> np.ndarray:
    """Examples by their loss, the highest first, `[k]` int64; those with NaN are left out.

    Args:
      losses: `[n]` nats.
    """
    ids = np.flatnonzero(np.isfinite(losses))
    return ids[np.argsort(-losses[ids], kind="stable")]


def propose_captions(
    model: Model,
    *,
    source: Source,
    ids: np.ndarray,
    kept: Kept,
    is_over: Callable[[], bool],
    on_rows: Callable[[RowInfo], None],
    on_progress: Callable[[int, int], None],
) -> int:
    """Captions pairs, the first of the list first, as far as there is time.

    Args:
      model: that makes captions.
      source: the data set.
      ids: `[k]` pairs that want captions.
      kept: where they go; those that are there are not made again.
      is_over: asked after every batch.
      on_rows: told of every batch of rows.
      on_progress: told how many of how many pairs have a caption.

    Returns:
      How many pairs of the list have one.

    Raises:
      Preempted: the audit was asked to stop; what was made is on disk.
    """
    kept.prepare()
    made = np.isin(ids, kept.ids())
    todo, done = ids[~made], int(made.sum())
    if not len(todo) or is_over():
        return done
    variables = model.method.prepare_captions(model.variables)
    load = LoadImage(source=source, transform=model.transform)
    batches = model.mapper.stream(
        _Caption(model.method.caption),
        variables,
        load=_LoadImageOf(source, load),
        order=model.mapper.order(
            members=_Chosen(todo, len(source)), batch_size=model.batch_size, seed=None
        ),
    )
    try:
        for rows, found in batches:
            on_rows(rows)
            kept.add(rows.due[rows.valid], {COLUMN: found[COLUMN][rows.valid]})
            done += int(rows.valid.sum())
            on_progress(done, len(ids))
            if is_over():
                break
    finally:
        batches.close()
        kept.flush()
    return done


def read_proposals(kept: Kept, model: Model, *, wanted: np.ndarray) -> dict[int, str]:
    """The captions of those pairs that want one and have one, by example."""
    wanted_ids, found = set(wanted.tolist()), {}
    for ids, rows in kept.read(COLUMN):
        for example_id, row in zip(ids.tolist(), rows, strict=True):
            if example_id in wanted_ids and (row != PAD).any():
                found[example_id] = model.tokenizer.decode(row)
    return found
