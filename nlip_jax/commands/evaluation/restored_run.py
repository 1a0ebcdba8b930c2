"""The trained model of a run, from its folder alone: neither the training data nor its index."""

from pathlib import Path

from ml_collections import ConfigDict

from nlip_jax import build
from nlip_jax.checkpoint import restore_part
from nlip_jax.commands import workdir as workdirs
from nlip_jax.commands.evaluation.subject import Subject, identity
from nlip_jax.commands.ranges import check_numbers
from nlip_jax.commands.session import batch_shapes
from nlip_jax.config import flatten
from nlip_jax.errors import UsageError
from nlip_jax.evaluators.base import Evaluator, Towers
from nlip_jax.train.map_examples import Mapper
from nlip_jax.train.state import StateFactory
from nlip_jax.types import PyTree


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
    check_numbers(config)
    data = workdirs.read_json(run / "data.json")
    clock = build.make_clock(config, num_examples=data["num_examples"])
    mesh = build.make_mesh(config, trains=False)
    mapper = Mapper(mesh=mesh, reading=build.make_reading(config))
    transform = build.make_transform(config)
    tokenizer = build.reopen_tokenizer(config, workdir=run)
    if tokenizer.vocab_size != data["vocab_size"]:
        raise UsageError(
            f"the vocabulary of {run} has {tokenizer.vocab_size} entries, and the model was "
            f"trained with {data['vocab_size']}: bring the run's own back"
        )
    model = build.make_model(config, vocab_size=tokenizer.vocab_size, mesh=mesh)
    method = build.make_method(config, model=model, mesh=mesh, clock=clock)
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
    part = {
        "ema_params" if averages else "params": abstract.params,
        "model_state": abstract.model_state,
    }
    evaluators = open_evaluators(config, own=own, run=run, output=output)

    def towers(step: int) -> Towers:
        state = restore_part(run / "checkpoints", step, abstract=part)
        return build.make_towers(
            config,
            method=method,
            params=state["ema_params" if averages else "params"],
            model_state=state["model_state"],
            tokenizer=tokenizer,
            transform=transform,
            mapper=mapper,
        )

    return Subject(
        name=run.name,
        identity=identity(own, data),
        evaluators=evaluators,
        towers=towers,
        mesh=mesh,
        provenance={"run": str(run), "data": data["fingerprint"]},
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
        found |= build.make_evaluators(part, folder)
    order = [f"{kind}/{name}" for kind, sets in config.evaluators.items() for name in sets]
    return {name: found[name] for name in order}


class _NoOptimizer:
    """Stands for the optimizer, whose state is not restored."""

    def init(self, params: PyTree) -> PyTree:
        """No state."""
        del params
        return ()
