"""`train`: pretrain, evaluate, report. The same command again goes on where a run was stopped."""

import contextlib
import functools
import hashlib
import json
import math
import sys
import time
from pathlib import Path
from typing import Any

import jax
import numpy as np
from ml_collections import ConfigDict

from nlip_jax import __version__, build, phases
from nlip_jax.checkpoint import Checkpointer
from nlip_jax.commands import compilation_cache, online, run_header
from nlip_jax.commands import session as sessions
from nlip_jax.commands import workdir as workdirs
from nlip_jax.commands.completion_results import completion_results
from nlip_jax.commands.evaluation.example_sets import fingerprints
from nlip_jax.commands.evaluation.results import Found, find, write_found, write_results
from nlip_jax.commands.placement_table import format_placement
from nlip_jax.commands.run_report import write_report
from nlip_jax.commands.session import Session
from nlip_jax.commands.table import COMMANDS
from nlip_jax.config import parse_command_line, to_json
from nlip_jax.data.quarantine import Quarantine
from nlip_jax.evaluators.noise import agreement, evaluate_noise
from nlip_jax.files import write_atomically
from nlip_jax.methods.base import Episode
from nlip_jax.report.table import format_results
from nlip_jax.sharding import on_leader
from nlip_jax.train import stop
from nlip_jax.train.ema import with_average
from nlip_jax.train.joining import JoinedColumn
from nlip_jax.train.loop import Trainer, failures, train
from nlip_jax.train.metrics import MetricsLog
from nlip_jax.train.profile import Trace, check_trace, parse_trace
from nlip_jax.train.spike_log import SpikeLog
from nlip_jax.train.state import fingerprint
from nlip_jax.train.step import compile_step
from nlip_jax.types import TrainState


def main(argv: list[str]) -> int:
    """Runs the command; returns the exit code."""
    config, values = parse_command_line(argv, command="train", extra_flags=COMMANDS["train"].flags)
    workdir = workdirs.find_workdir(values["workdir"], argv)
    trace = parse_trace(values["profile"], folder=workdir / "profile")
    sessions.start_processes()
    # Looks before it locks: a folder of others is left as it is.
    changes = workdirs.check_config(workdir, config, may_grow=build.may_grow(config))
    with contextlib.ExitStack() as stack:
        on_leader(lambda: stack.enter_context(workdirs.lock(workdir)))
        return run_in(workdir, config, changes=changes, trace=trace)


def run_in(
    workdir: Path, config: ConfigDict, *, changes: dict[str, tuple], trace: Trace | None
) -> int:
    """Everything a run does in its folder, from top to bottom.

    Args:
      workdir: of the run, locked.
      config: of this command.
      changes: fields that differ from an earlier part of the run, and may.
      trace: of some of its steps, if one is asked for.

    Returns:
      The exit code.
    """
    begun = time.time()
    leader = jax.process_index() == 0

    # --- Is there anything to do? -----------------------------------------------------------------
    results = workdirs.finished_results(config, workdir)
    asks_anew = any(name.startswith(("evaluat", "report.", "ema.evaluate")) for name in changes)
    if results is not None and not asks_anew:
        if leader:
            print(format_results(results))
            untraced = f", so nothing is left for {trace}" if trace else ""
            print(f"this run is finished{untraced}; {where_to_look(config, workdir)}")
        return 0

    # --- Build and check everything, before anything is compiled ----------------------------------
    run = sessions.open_session(config, workdir)
    check_trace(trace, total=run.plan.total)
    compilation_cache.use(config.compilation_cache, workdir)
    on_leader(lambda: workdirs.check_data(workdir, run.data_description))
    checkpointer = Checkpointer(workdir / "checkpoints", keep=config.checkpoint.keep)
    latest = checkpointer.latest_step()
    workdirs.check_total(config, total=run.plan.total, done=latest or 0)
    given = run.given_params() if latest is None else {}
    if leader:
        workdirs.say_changes(changes)
        write_atomically(workdir / "config.json", to_json(config).encode())
        phases.start_log(workdir / "events.jsonl")
        announce(run)
    stop.install_handlers()
    phases.enter("start", **{name: f"{old!r} -> {new!r}" for name, (old, new) in changes.items()})
    run = sessions.with_cache(run)

    # --- Compile, restore or create ---------------------------------------------------------------
    phases.enter("compile")
    abstract = run.factory.abstract()
    compiled = compile_step(run.step, state=abstract, batch=run.batch, mesh=run.mesh)
    run_header.show(run, state=abstract, compiled=compiled)
    meta = {}  # of the checkpoint
    if latest is None:
        state = run.factory.create(given)
        del given  # as large as the model
    else:
        restored = checkpointer.restore(latest, abstract=abstract)
        state, meta = restored.state, restored.meta
        if leader:
            print(f"going on from step {latest}", file=sys.stderr)
    log = (
        MetricsLog(workdir, resume_step=int(state.step), tensorboard=config.log.tensorboard)
        if leader
        else None
    )

    # --- Train ------------------------------------------------------------------------------------
    quarantine = run.quarantine(meta)
    trainer = Trainer(
        method=run.method,
        step=compiled,
        mesh=run.mesh,
        order=run.order,
        load=run.load,
        reading=run.mapper.reading,
        quarantine=quarantine,
        columns=functools.partial(open_columns, run),
        plan=run.plan,
        checkpointer=checkpointer,
        meta=functools.partial(checkpoint_meta, run, quarantine),
        episode=functools.partial(make_episode, run, quarantine),
        evaluate=lambda state, step: {
            f"eval/{name}": value for name, value in evaluate(run, state).numbers.items()
        },
        log=log,
        peak_rate=run_header.make_yardstick(run).peak_rate,
        trace=trace if leader else None,
        spikes=spike_log(run, resume_step=int(state.step)),
        stops_at_non_finite=run.spike_policy is None or not run.spike_policy.skips,
        rows=online.keep_losses(run, resume_step=int(state.step)),
    )
    try:
        state = train(trainer, state)
        checkpointer.wait()
        phases.enter("evaluate", step=run.plan.total)
        found = evaluate(run, state)
        noise = noise_results(run, state) | completion_results(run, state)
        if log is not None:
            values = found.numbers | noise
            log.write(run.plan.total, {f"eval/{name}": value for name, value in values.items()})
    finally:
        checkpointer.close()
        if log is not None:
            log.close()

    # --- Report -----------------------------------------------------------------------------------
    failed = failures(quarantine)
    others = noise | {
        "data/failed_examples": failed.total(),
        **{f"data/failed/{kind}": number for kind, number in failed.items()},
        "step": run.plan.total,
        "time/last_part_seconds": time.time() - begun,
    }
    params = fingerprint(state.params)  # on all processes: each holds a part of them
    if leader:
        phases.enter("report")
        found = found.with_intervals(draws=config.evaluation.bootstrap, seed=config.seed)
        results = found.numbers | others
        write_outcomes(run, found)
        if config.report.enabled:
            write_report(run, state, results=results)
        phases.enter("results")
        write_results(workdir / "results.json", results)
        phases.enter("done", params=params)
        if summary := quarantine.summary():
            print(summary, file=sys.stderr)
        print(format_results(results))
        print(where_to_look(config, workdir))
    return 0


def where_to_look(config: ConfigDict, workdir: Path) -> str:
    """The last line of a run."""
    if config.report.enabled:
        return f"the page of this run is {workdir / 'report.html'}"
    return f"the numbers of this run are in {workdir / 'results.json'}"


def announce(run: Session) -> None:
    """What is about to happen, in a few lines."""
    params = run.factory.abstract().params
    count = sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(params))
    print(
        f"{run.config.method}: {count / 1e6:.2f} M parameters, {len(run.draw):,} examples, "
        f"{run.plan.total:,} steps of {run.config.batch_size}, {run.mesh.size} "
        f"{jax.devices()[0].device_kind} device{'s' * (run.mesh.size > 1)}, "
        f"data {run.fingerprint}, seed {run.config.seed}, in {run.workdir}",
        file=sys.stderr,
    )
    print(format_placement(run.factory.placement, params), file=sys.stderr)
    if run.config.data.keep_column:
        low, high = run.config.data.keep_range
        print(
            f"of {len(run.source):,} examples those with {low} <= value < {high} in "
            f"{run.config.data.keep_column} take part, and those added since it was made",
            file=sys.stderr,
        )


def checkpoint_meta(run: Session, quarantine: Quarantine, step: int) -> dict[str, Any]:
    """What makes a checkpoint explain itself; the position is all there is of data state."""
    return {
        "failed_examples": dict(failures(quarantine)),
        "failed_window": quarantine.window,
        "config": json.loads(to_json(run.config)),
        "position": step * run.config.batch_size,
        "data_fingerprint": run.fingerprint,
        "seed": run.config.seed,
        "version": __version__,
    }


def spike_log(run: Session, *, resume_step: int) -> SpikeLog | None:
    """What takes down loss spikes; None where nobody looks for them."""
    if run.spike_policy is None:
        return None
    return SpikeLog(
        run.workdir,
        policy=run.spike_policy,
        rows=run.order.rows,
        batch_size=run.config.batch_size,
        resume_step=resume_step,
        writes=jax.process_index() == 0,
    )


def open_columns(
    run: Session, episode: int, *, names: tuple[str, ...] | None = None
) -> dict[str, JoinedColumn]:
    """What batches of an episode show beside their rows, by name.

    Args:
      run: whose columns they are.
      episode: 0 before the first estimate.
      names: of them; None: all that the method asks for.
    """
    found = {}
    for name in run.method.columns if names is None else names:
        joined = run.method.joined(name)
        values = None
        if run.method.shows(joined.column, episode):
            values = run.given_columns.get(joined.column)
            if values is None and (version := run.method.version(joined.column, episode)):
                values = run.column(joined.column, version).read()
        found[name] = JoinedColumn(joined, values)
    return found


def make_episode(
    run: Session, quarantine: Quarantine, index: int, state: TrainState
) -> Episode:
    """What the method's refresh may use; its columns carry a key of all that they depend on."""
    key = column_key(run, state)

    def map_examples(
        name: str, function: Any, state: Any, join: tuple[str, ...] = ()
    ) -> np.ndarray:
        return run.mapper.map_to_column(
            function,
            state,
            load=run.load_plain,
            members=run.members,
            batch_size=run.config.batch_size,
            seed=run.config.seed + 1_000_003 * index,
            column=run.column(name, index, key=key),
            columns=open_columns(run, index, names=join),
            meta={"tokenizer": run.tokenizer.fingerprint},
            on_rows=functools.partial(quarantine.add, in_training=False),
        )

    return Episode(
        index=index,
        map_examples=map_examples,
        column=lambda name: run.column(name, index, key=key),
        recent_losses=lambda name: online.make_recent_losses(run, name, episode=index, key=key),
    )


def column_key(run: Session, state: TrainState) -> str:
    """Identifies what a column was computed from: parameters, data, processes, code."""
    made_of = [
        fingerprint(state.params),
        run.fingerprint,
        jax.process_count(),
        run.mesh.size,
        __version__,
    ]
    if run.texts.encoder is not None:  # it finds the concepts
        made_of.append(fingerprint(run.texts.encoder.variables))
    return hashlib.sha256(json.dumps(made_of).encode()).hexdigest()[:16]


def evaluate(run: Session, state: TrainState) -> Found:
    """Runs all evaluators."""
    if run.config.ema.evaluate:
        state = with_average(state)
    towers = build.make_towers(
        run.config,
        method=run.method,
        params=state.params,
        model_state=state.model_state,
        tokenizer=run.tokenizer,
        transform=run.transform,
        mapper=run.mapper,
    )
    return find(run.evaluators, towers, sets=fingerprints(run.evaluators))


def write_outcomes(run: Session, found: Found) -> None:
    """Writes outcomes.npz and evaluation.html into the workdir of a run that has evaluators."""
    if not found.outcomes:
        return
    write_found(
        run.workdir,
        found,
        step=run.plan.total,
        page=run.config.report.enabled,
        title=f"Evaluation of {run.config.method} on {run.config.data.source}",
        description=f"at its end, step {run.plan.total:,}",
        provenance={
            "run": str(run.workdir),
            "step": str(run.plan.total),
            "seed": str(run.config.seed),
            "data": run.fingerprint,
            "nlip_jax": __version__,
        },
    )


def noise_results(run: Session, state: TrainState) -> dict[str, float]:
    """What is known of the noise probabilities; empty where there are none.

    How well the last ones find the planted noise, where some is; and how far the last two agree.
    """
    last = int(state.episode)
    if "noise_prob" not in run.method.columns or not last:
        return {}
    newest = run.method.version("noise_prob", last)
    versions = [run.method.version("noise_prob", newest - 1), newest]
    estimates = [run.column("noise_prob", version).read() for version in versions if version]
    found = {}
    truth = run.source.truth()
    if truth is not None:
        losses = run.column("pair_loss", newest).read()
        read = np.isfinite(losses)  # the others take no part, or could not be read
        found = evaluate_noise(estimates[-1][read], truth[read])
    if len(estimates) > 1:
        agreed = agreement(*estimates)
        found |= {f"agreement_{name}": value for name, value in agreed.items()}
    return {f"noise/{name}": value for name, value in found.items()}
