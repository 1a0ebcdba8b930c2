"""The trained model of a run, from its folder alone: neither the training data nor its index."""

import dataclasses
from pathlib import Path
from typing import Any

from jax.sharding import Mesh
from ml_collections import ConfigDict

from nlip_jax import build
from nlip_jax.build.texts import Texts
from nlip_jax.checkpoint import restore_part
from nlip_jax.commands import workdir as workdirs
from nlip_jax.commands.evaluation.subject import Subject, identity
from nlip_jax.commands.ranges import check_numbers
from nlip_jax.commands.session import batch_shapes
from nlip_jax.commands.texts import open_texts
from nlip_jax.config import flatten
from nlip_jax.data.text.tokenizer import Tokenizer
from nlip_jax.errors import UsageError
from nlip_jax.evaluators.base import Evaluator, Towers
from nlip_jax.methods.base import Method
from nlip_jax.train.map_examples import Mapper
from nlip_jax.train.state import StateFactory
from nlip_jax.types import PyTree


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class RunModel:
    """The model of a run, built and checked; nothing compiled or restored yet.

    Attributes:
      method: of the run.
      tokenizer: of its captions.
      mesh: that parameters are restored to.
      checkpoints: their folder.
      abstract: fields of the state in a checkpoint that make the model.
      data: what data.json of the run says.
    """

    method: Method
    tokenizer: Tokenizer
    mesh: Mesh
    checkpoints: Path
    abstract: dict[str, PyTree]
    data: dict[str, Any]

    def restore(self, step: int) -> dict[str, PyTree]:
        """The model as it was at a step: "params", averaged if that is evaluated; "model_state".

        Raises:
          RunError: the checkpoint cannot be read.
        """
        found = restore_part(self.checkpoints, step, abstract=self.abstract)
        return {name.removeprefix("ema_"): part for name, part in found.items()}


def open_model(
    config: ConfigDict, run: Path, *, mesh: Mesh | None = None, captions: bool = True
) -> RunModel:
    """Builds the model of a run from its folder.

    Args:
      config: of the run.
      run: its folder, which is only read.
      mesh: of another run that is to use the model; None: that of the config.
      captions: whether it is to make some; else its concepts are not looked for.

    Raises:
      UsageError: the config, or the folder of the run, is not to be used.
    """
    check_numbers(config)
    data = workdirs.read_json(run / "data.json")
    clock = build.make_clock(config, num_examples=data["num_examples"])
    mesh = build.make_mesh(config, trains=False) if mesh is None else mesh
    tokenizer = build.reopen_tokenizer(config, workdir=run)
    if tokenizer.vocab_size != data["vocab_size"]:
        raise UsageError(
            f"the vocabulary of {run} has {tokenizer.vocab_size} entries, and the model was "
            f"trained with {data['vocab_size']}: bring the run's own back"
        )
    model = build.make_model(config, vocab_size=tokenizer.vocab_size, mesh=mesh)
    texts = Texts(tokenizer=tokenizer)
    if captions:
        texts = open_texts(config, source=None, tokenizer=tokenizer, workdir=run, mesh=mesh)
        _check_concepts(texts, run, data)
    method = build.make_method(config, model=model, mesh=mesh, clock=clock, texts=texts)
    factory = StateFactory(
        method=method,
        tx=_NoOptimizer(),
        placement=build.make_placement(config, mesh=mesh),
        batch=batch_shapes(config, method),
        seed=config.seed,
        ema=config.ema.decay > 0,
    )
    abstract = factory.abstract()
    averages = config.ema.evaluate and abstract.ema_params is not None
    return RunModel(
        method=method,
        tokenizer=tokenizer,
        mesh=mesh,
        checkpoints=run / "checkpoints",
        abstract={
            "ema_params" if averages else "params": abstract.params,
            "model_state": abstract.model_state,
        },
        data=data,
    )


def _check_concepts(texts: Texts, run: Path, data: dict[str, Any]) -> None:
    if texts.concepts is None:
        return
    found = texts.concepts.fingerprint
    if data.get("concepts", found) != found:
        raise UsageError(
            f"the concepts of {run} are not those that its model was trained with: bring its "
            "concepts.txt, or the file that config.concepts.vocabulary names, back"
        )


def open_run(config: ConfigDict, run: Path, *, own: ConfigDict, output: Path) -> Subject:
    """Builds the model of a run and its evaluators; nothing is compiled or restored yet.

    Args:
      config: of the run, with the evaluators that are asked for.
      run: its folder, which is only read.
      own: the config that the run was trained with.
      output: where indices of other evaluation sets than its own go.

    Raises:
      UsageError: the config, or the folder of the run, is not to be used.
    """
    model = open_model(config, run)
    mapper = Mapper(mesh=model.mesh, reading=build.make_reading(config))
    transform = build.make_transform(config)
    evaluators = open_evaluators(config, own=own, run=run, output=output)

    def towers(step: int) -> Towers:
        return build.make_towers(
            config,
            method=model.method,
            **model.restore(step),
            tokenizer=model.tokenizer,
            transform=transform,
            mapper=mapper,
        )

    return Subject(
        name=run.name,
        identity=identity(own, model.data),
        evaluators=evaluators,
        towers=towers,
        mesh=model.mesh,
        provenance={"run": str(run), "data": model.data["fingerprint"]},
    )


def open_evaluators(
    config: ConfigDict, *, own: ConfigDict, run: Path, output: Path
) -> dict[str, Evaluator]:
    """Evaluators in the order of the config; sets of the run's own are read through its indices."""
    found = {}
    for folder, of_run in ((run, True), (output, False)):
        part = config.copy_and_resolve_references()
        part.evaluators.unlock()
        for kind, sets in config.evaluators.items():
            known = own.evaluators.get(kind, {})
            for name, spec in sets.items():
                if of_run != (name in known and flatten(known[name]) == flatten(spec)):
                    del part.evaluators[kind][name]
        found |= build.make_evaluators(part, folder, can_caption=build.can_caption(own))
    order = [f"{kind}/{name}" for kind, sets in config.evaluators.items() for name in sets]
    return {name: found[name] for name in order}


class _NoOptimizer:
    """Stands for the optimizer, whose state is not restored."""

    def init(self, params: PyTree) -> PyTree:
        """No state."""
        del params
        return ()
