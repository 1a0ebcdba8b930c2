"""Captions of a whole data set, as columns: killed or stopped, the same command goes on."""

import dataclasses
import sys
from pathlib import Path
from typing import Any

import jax
import numpy as np
from ml_collections import ConfigDict

from nlip_jax import __version__, build, phases
from nlip_jax.columns import ColumnVersion
from nlip_jax.commands.captioning.model import CaptionModel
from nlip_jax.commands.captioning.output import Output
from nlip_jax.commands.captioning.request import Request
from nlip_jax.commands.prepare_command import ProgressLine
from nlip_jax.commands.ranges import check_numbers
from nlip_jax.data.loading import LoadPair
from nlip_jax.data.members import Members
from nlip_jax.data.pipeline import RowInfo
from nlip_jax.data.quarantine import Quarantine
from nlip_jax.data.source import Source
from nlip_jax.data.text.tokenizer import Tokenizer
from nlip_jax.train.joining import JoinedColumn
from nlip_jax.train.map_examples import Mapper, batches_per_fragment


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Data:
    """A data set that is captioned.

    Attributes:
      name: for people.
      config: that it is of.
      source: its examples.
      members: those that take part.
      fingerprint: of the rows.
    """

    name: str
    config: ConfigDict
    source: Source
    members: Members
    fingerprint: str


def open_data(request: Request, tokenizer: Tokenizer) -> Data:
    """Opens the training data of the run, or those of another config.

    Raises:
      UsageError: they cannot be used.
    """
    own = request.other is None
    config = request.config if own else request.other
    check_numbers(config)
    # An index of other data goes into the output: the folder of the run has one of its own.
    source = build.open_training_source(config, request.run if own else request.output)
    draw = build.make_draw(config, source=source)
    return Data(
        name=f"the training data of {request.run.name}" if own else f"the data of "
        f"{request.other_name}",
        config=config,
        source=source,
        members=draw.members,
        fingerprint=build.data_fingerprint(config, source=source, draw=draw, tokenizer=tokenizer),
    )


def open_output(request: Request, model: CaptionModel, data: Data) -> Output:
    """The folder of the captions that were asked for.

    Raises:
      UsageError: others are there.
    """
    output = Output(
        folder=request.output,
        made_of={
            "step": request.step,
            **model.exact,
            "data": data.fingerprint,
            "tokenizer": model.tokenizer.fingerprint,
            **{f"captions.{name}": value for name, value in request.decoding.items()},
            "concepts.top_k": request.top_k,
            "concepts.prompt": request.config.concepts.prompt,
            "seed": request.config.seed,
            "nlip_jax": __version__,
        },
        made_for=dataclasses.asdict(data.source.numberings[-1]),
        split=(jax.process_count(), model.mesh.size, model.batch_size),
    )
    output.claim()
    return output


def caption_all(model: CaptionModel, data: Data, output: Output) -> dict[str, np.ndarray]:
    """Finds the concepts of all examples and makes a caption of each, as far as is not done.

    Args:
      model: that makes captions.
      data: the examples.
      output: where columns go; locked.

    Returns:
      Columns by name: "synthetic_caption", rows of tokens `[n, l]`, 0 where there is none, and,
      from a model that takes concepts, "concepts", `[n, k]` numbers from 1.
    """
    method, found, columns = model.method, {}, {}
    work = _Work(model, data, output)
    if method.concepts is not None:
        phases.enter("concept_pass")
        found["concepts"] = work.run(
            "concepts", method.concept_numbers, lambda: model.retrieval, stage="finding concepts"
        )
        joined = method.joined("concept_tokens")
        columns["concept_tokens"] = JoinedColumn(joined, found["concepts"])
    phases.enter("caption_pass")
    found["synthetic_caption"] = work.run(
        *("synthetic_caption", method.synthetic_captions),
        lambda: (model.variables, np.int32(0)),
        stage="captioning",
        columns=columns,
    )
    work.say_failed()
    return found


class _Work:
    """What the passes over the data share."""

    def __init__(self, model: CaptionModel, data: Data, output: Output) -> None:
        self._model, self._data, self._output = model, data, output
        self._mapper = Mapper(mesh=model.mesh, reading=build.make_reading(data.config))
        self._load = LoadPair(
            source=data.source, tokenizer=model.tokenizer, transform=model.transform
        )
        process = jax.process_index()
        name = f"quarantine-{process:05d}.jsonl" if process else "quarantine.jsonl"
        self._quarantine = Quarantine(
            output.folder / name,
            source=data.source,
            max_bad_fraction=data.config.data.max_bad_fraction,
        )

    def run(self, name: str, function: Any, given: Any, *, stage: str, **options: Any) -> Any:
        """Values of a column; `given` is called where there is something left to do."""
        column = self._output.column(name)
        if column.is_done:
            return column.read()
        progress = self._progress(column, stage)

        def on_rows(rows: RowInfo) -> None:
            self._quarantine.add(rows, in_training=False)
            progress(rows)

        return self._mapper.map_to_column(
            function,
            given(),
            load=self._load,
            members=self._data.members,
            batch_size=self._model.batch_size,
            seed=None,
            column=column,
            meta={"tokenizer": self._model.tokenizer.fingerprint},
            on_rows=on_rows,
            **options,
        )

    def _progress(self, column: ColumnVersion, stage: str) -> Any:
        """Shows how far the pass is, counted with what an earlier command has done of it."""
        column.prepare()
        total, batch_size = len(self._data.members), self._model.batch_size
        per_fragment = batches_per_fragment(-(-total // batch_size), batch_size=batch_size)
        done = min(total, column.num_own_fragments() * per_fragment * batch_size)
        line = ProgressLine()

        def progress(rows: RowInfo) -> None:
            nonlocal done
            done = min(total, done + int(rows.valid.sum()) * jax.process_count())
            if jax.process_index() == 0:
                line(stage, done, total)

        if done and jax.process_index() == 0:
            print(f"going on with {stage} after {done:,} of {total:,}", file=sys.stderr)
        return progress

    def say_failed(self) -> None:
        """One line on what cannot be read."""
        if summary := self._quarantine.summary():
            print(summary, file=sys.stderr)


def where_to_look(request: Request, output: Output) -> str:
    """The last lines: what was made, and how another run trains with it."""
    folder = output.column("synthetic_caption").directory
    vocabulary = Path(request.config.tokenizer.model or request.run / "tokenizer.model")
    return (
        f"the captions are in {output.table}; another run trains with them by "
        f"--config.nlip.completion.captions={folder}"
        + (
            f" --config.tokenizer.model={vocabulary}"
            if request.config.tokenizer.name == "sentencepiece"
            else ""
        )
    )
