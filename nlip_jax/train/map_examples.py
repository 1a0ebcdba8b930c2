"""One primitive for everything that looks at a whole data set: apply a function to every example.

`map_to_column` keeps the results on disk by `example_id` and survives being killed; `collect`
keeps them in memory, for evaluation sets. Both run sharded over all hosts.
"""

import dataclasses
import functools
import logging
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import Mesh

from nlip_jax import phases, sharding
from nlip_jax.columns import ColumnVersion
from nlip_jax.data.failures import KINDS
from nlip_jax.data.loading import Loader
from nlip_jax.data.members import Members, Ranges
from nlip_jax.data.order import Pass
from nlip_jax.data.pipeline import Reading, RowInfo, open_batches, take_row_info
from nlip_jax.train import stop
from nlip_jax.train.joining import JoinedColumn, join_columns
from nlip_jax.types import Batch, PyTree

_LOG = logging.getLogger(__name__)
# How much of a pass a killed run can lose: one part in so many, and never more than so many rows.
_FRAGMENTS, _FRAGMENT_ROWS = 16, 65_536


@dataclasses.dataclass(frozen=True)
class Collected:
    """Results of all examples.

    Attributes:
      values: pytree of arrays `[n, ...]`, in the order of ids; NaN where nothing could be read.
      is_missing: `[n]` bool, True there.
    """

    values: PyTree
    is_missing: np.ndarray


@functools.lru_cache(maxsize=32)
def _compile(function: Callable[[PyTree, Batch], PyTree], mesh: Mesh) -> Callable:
    """The same function on the same mesh is compiled once, however often it is applied.

    Results are split by row, whatever the sharding of the parameters would make of them.
    """
    return jax.jit(function, out_shardings=sharding.by_row(mesh))


@dataclasses.dataclass(frozen=True)
class Mapper:
    """Applies functions to examples on a mesh.

    Attributes:
      mesh: batches are split over it by row.
      reading: how rows are read.
    """

    mesh: Mesh
    reading: Reading

    def _apply(
        self,
        function: Callable[[PyTree, Batch], PyTree],
        params: PyTree,
        *,
        load: Loader,
        order: Pass,
        start: int,
        reading: Reading,
        columns: dict[str, JoinedColumn] | None = None,
    ) -> Iterator[tuple[RowInfo, PyTree]]:
        """Yields this process's rows of the result, and what they are, from batch `start` on."""
        compiled = _compile(function, self.mesh)
        with open_batches(
            order=order, load=load, start=start, stop=order.num_batches, reading=reading
        ) as batches:
            waiting = None  # one batch stays in flight while the next is read
            for batch in batches:
                stop.check()
                rows = take_row_info(batch)
                if columns is not None:
                    batch["example_id"] = id_words(rows.ids)
                    join_columns(batch, rows.ids, columns)
                result = compiled(params, sharding.to_devices(batch, self.mesh))
                if waiting is not None:
                    yield _fetch(*waiting)
                waiting = rows, result
            if waiting is not None:
                yield _fetch(*waiting)

    def stream(
        self,
        function: Callable[[PyTree, Batch], PyTree],
        params: PyTree,
        *,
        load: Loader,
        order: Pass,
        start: int = 0,
    ) -> Iterator[tuple[RowInfo, PyTree]]:
        """Results of one batch after another, for whoever keeps them in its own way.

        Args:
          function: (params, batch) -> pytree of [b, ...].
          params: first argument of the function.
          load: makes a row; should not augment.
          order: of the examples.
          start: first batch.

        Yields:
          What this process's rows of a batch are, and their results; NaN or 0 for examples that
          cannot be read.
        """
        return self._apply(
            function, params, load=load, order=order, start=start, reading=self.reading
        )

    def order(self, *, members: Members, batch_size: int, seed: int | None) -> Pass:
        """This process's part of a pass over all members."""
        rows = sharding.local_rows(batch_size, self.mesh)
        return Pass(members=members, batch_size=batch_size, rows=rows, seed=seed)

    def map_to_column(
        self,
        function: Callable[[PyTree, Batch], PyTree],
        params: PyTree,
        *,
        load: Loader,
        members: Members,
        batch_size: int,
        seed: int | None,
        column: ColumnVersion,
        columns: dict[str, JoinedColumn] | None = None,
        meta: dict[str, Any] | None = None,
        on_rows: Callable[[RowInfo], None] = lambda rows: None,
    ) -> np.ndarray:
        """Values of all members, computed once, whatever happens in between.

        An example that cannot be read has NaN, or 0 where the values are no floats, as those that
        are no members.

        Args:
          function: (params, batch) -> [b, ...]; the batch has "example_id", `[b, 2]` uint32.
          params: first argument of the function.
          load: makes a row; should not augment.
          members: the examples to look at.
          batch_size: global; real rows fill up the last batch.
          seed: of the order: neighbours on disk would be hard negatives of one another. None:
            the order on disk, where no example looks at others.
          column: where the values go.
          columns: what else a batch shows, by name.
          meta: plain data to keep beside the values.
          on_rows: told of every batch of rows, for the account of what failed.

        Returns:
          [n, ...] values by example id, memory-mapped.
        """
        if column.is_done:
            return column.read()
        column.prepare()
        order = self.order(members=members, batch_size=batch_size, seed=seed)
        per_fragment = batches_per_fragment(order.num_batches, batch_size=batch_size)
        done = column.num_own_fragments()
        if jax.process_count() > 1:  # the function is collective: all start at the same batch
            done = int(np.min(multihost_utils.process_allgather(np.int32(done))))
        ids, values, index = [], [], done

        def flush() -> None:
            nonlocal index
            column.append(index, ids=np.concatenate(ids), values=np.concatenate(values))
            index += 1
            ids.clear()
            values.clear()
            phases.enter("fragment", column=column.directory.parent.name, index=index)

        results = self._apply(
            function,
            params,
            load=load,
            order=order,
            start=done * per_fragment,
            reading=self.reading,
            columns=columns or {},
        )
        for rows, result in results:
            on_rows(rows)
            ids.append(rows.due[rows.valid])
            values.append(result[rows.valid])
            if len(ids) == per_fragment:
                flush()
        if ids:
            flush()
        column.merge(num_examples=members.num_ids, present=members.mask, meta=meta)
        return column.read()

    def collect(
        self,
        function: Callable[[PyTree, Batch], PyTree],
        params: PyTree,
        *,
        load: Loader,
        num_examples: int,
        batch_size: int,
    ) -> Collected:
        """Results of all examples in memory on every process, `[n, ...]` in the order of ids.

        Those of examples that cannot be read are NaN, with one line that says how many of those
        that this process has read.

        Args:
          function: (params, batch) -> pytree of floats [b, ...].
          params: first argument of the function.
          load: makes a row.
          num_examples: n.
          batch_size: global.
        """
        order = self.order(members=Ranges(num_examples), batch_size=batch_size, seed=None)
        # What fits in memory is read before a pool of processes would have started.
        threads = dataclasses.replace(self.reading, workers=0)
        ids, results, missing, failed = [], [], [], Counter()
        for rows, result in self._apply(
            function, params, load=load, order=order, start=0, reading=threads
        ):
            ids.append(rows.due[rows.valid])
            results.append(jax.tree.map(lambda values, keep=rows.valid: values[keep], result))
            bad = rows.is_replaced & rows.valid
            missing.append(bad[rows.valid])
            failed.update(KINDS[kind] for kind in rows.failed_kind[bad, 0])
        if failed:
            kinds = ", ".join(f"{number} x {kind}" for kind, number in failed.items())
            _LOG.warning(
                "%d of %d images or texts could not be read and take no part: %s",
                *(failed.total(), sum(map(len, ids)), kinds),
            )
        own_ids = np.concatenate(ids)
        own = jax.tree.map(lambda *rows: np.concatenate(rows), *results), np.concatenate(missing)
        if jax.process_count() == 1:
            place = np.argsort(own_ids)
            return Collected(*jax.tree.map(lambda rows: rows[place], own))
        return Collected(*jax.tree.map(lambda rows: _gather_rows(own_ids, rows, num_examples), own))


def batches_per_fragment(num_batches: int, *, batch_size: int) -> int:
    """How many batches of a pass are kept together on disk."""
    per_fragment = max(1, -(-num_batches // _FRAGMENTS))
    return max(1, min(per_fragment, _FRAGMENT_ROWS // batch_size))


def id_words(ids: np.ndarray) -> np.ndarray:
    """Numbers of examples as devices take them, without 64-bit integers: `[k]` to `[k, 2]` uint32.

    Lower half first; a random key is made of them.
    """
    return np.ascontiguousarray(ids, np.int64).view(np.uint32).reshape(-1, 2)


def _fetch(rows: RowInfo, result: PyTree) -> tuple[RowInfo, PyTree]:
    """Results on the host; nothing (NaN or 0) where the row held another example than was due."""

    def fetch(values: jax.Array) -> np.ndarray:
        fetched = sharding.to_host(values)
        if rows.is_replaced.any():
            fetched = fetched.copy()
            nothing = np.nan if np.issubdtype(fetched.dtype, np.floating) else 0
            fetched[rows.is_replaced] = nothing
        return fetched

    return rows, jax.tree.map(fetch, result)


def _gather_rows(ids: np.ndarray, rows: np.ndarray, num_examples: int) -> np.ndarray:
    """Rows of all processes in the order of ids; processes may hold different numbers of them."""
    most = int(np.max(multihost_utils.process_allgather(np.int32(len(ids)))))
    padded_ids = np.full((most,), -1, np.int32)
    padded_ids[: len(ids)] = ids
    padded = np.zeros((most, *rows.shape[1:]), rows.dtype)
    padded[: len(rows)] = rows
    all_ids = multihost_utils.process_allgather(padded_ids).reshape(-1)
    all_rows = multihost_utils.process_allgather(padded).reshape(-1, *rows.shape[1:])
    dense = np.zeros((num_examples, *rows.shape[1:]), rows.dtype)
    dense[all_ids[all_ids >= 0]] = all_rows[all_ids >= 0]
    return dense
