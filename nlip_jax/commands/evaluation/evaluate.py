"""Evaluates the checkpoints of a run, or a model: from the command line to results on disk."""

import contextlib
import functools
import time
from collections.abc import Callable

import jax
import numpy as np
from jax.experimental import multihost_utils

from nlip_jax.commands import compilation_cache
from nlip_jax.commands import session as sessions
from nlip_jax.commands import workdir as workdirs
from nlip_jax.commands.evaluation.example_sets import fingerprints
from nlip_jax.commands.evaluation.imported_model import open_model
from nlip_jax.commands.evaluation.output import Output
from nlip_jax.commands.evaluation.request import Request, read_request
from nlip_jax.commands.evaluation.restored_run import open_run
from nlip_jax.commands.evaluation.results import find, say
from nlip_jax.commands.evaluation.steps import END, WAIT, OneModel, Steps
from nlip_jax.commands.evaluation.subject import Subject
from nlip_jax.commands.evaluation.waiting import Check, wait
from nlip_jax.commands.json_file import write_json_file
from nlip_jax.errors import RunError, UsageError
from nlip_jax.evaluators.base import Towers
from nlip_jax.report.table import format_results
from nlip_jax.sharding import on_leader
from nlip_jax.train import stop


def evaluate(argv: list[str]) -> int:
    """Runs the command; returns the exit code."""
    request = read_request(argv)
    sessions.start_processes()
    with contextlib.ExitStack() as stack:
        on_leader(lambda: stack.enter_context(workdirs.lock(request.output, flag="--output")))
        return evaluate_in(request)


def evaluate_in(request: Request) -> int:
    """Everything an evaluation does, from top to bottom; its output is locked."""
    compilation_cache.use(request.config.compilation_cache, request.output)
    subject = _open(request)
    if not subject.evaluators:
        raise UsageError(
            "config.evaluators is empty: there is nothing to measure; name sets, or a --config "
            "with some"
        )
    sets = fingerprints(subject.evaluators)
    output = Output(request.output, config=request.config, subject=subject, sets=sets)
    on_leader(output.open)
    stop.install_handlers(after="this set")
    check = Check()
    steps = _steps(request)
    while (step := _agree(lambda: steps.next(output.done))) != END:
        if step == WAIT:
            wait(request.poll, check)
            continue
        begun = time.monotonic()
        towers = _restore(subject, step, steps=steps)
        if towers is None:
            continue
        try:
            found = find(
                subject.evaluators,
                towers,
                sets=sets,
                check=check,
                say=lambda name, step=step: say(f"step {step}: {name}"),
            )
        except RunError as error:
            raise RunError(f"step {step}: {error}") from error
        write = functools.partial(output.write, step, found, seconds=time.monotonic() - begun)
        on_leader(write)
    if jax.process_index() == 0:
        _conclude(request, output)
    return 0


def _open(request: Request) -> Subject:
    if request.model:
        return open_model(request.model, request.config, output=request.output)
    return open_run(request.config, request.run, own=request.own, output=request.output)


def _steps(request: Request) -> Steps | OneModel:
    if request.model:
        return OneModel()
    return Steps(run=request.run, chosen=request.chosen, timeout=request.timeout)


def _conclude(request: Request, output: Output) -> None:
    # What was asked for, even where a newer step was evaluated before.
    step = int(request.chosen) if request.chosen.isdecimal() else None
    results = output.results(step)
    if not results:
        raise RunError("no checkpoint stayed long enough to be evaluated: evaluate again")
    if request.json is not None:
        write_json_file(request.json, results)
    print(format_results(results))
    print(output.where_to_look(results["step"]))


def _restore(subject: Subject, step: int, *, steps: Steps | OneModel) -> Towers | None:
    """The model at a step; None where the run has removed the checkpoint meanwhile."""
    problem, towers = None, None
    try:
        towers = subject.towers(step)
    except RunError as error:
        problem = error
    failed = problem is not None
    if jax.process_count() > 1:
        failed = bool(np.max(multihost_utils.process_allgather(np.int32(failed))))
    if not failed:
        return towers
    if _agree(lambda: int(steps.is_gone(step))):
        say(f"step {step}: the run has removed this checkpoint meanwhile")
        return None
    raise problem or RunError(f"step {step}: another process could not restore it")


def _agree(decide: Callable[[], int]) -> int:
    """What the first process decides, on all of them."""
    decided = [0]

    def ask() -> None:
        decided[0] = decide()

    on_leader(ask)
    if jax.process_count() == 1:
        return decided[0]
    return int(multihost_utils.broadcast_one_to_all(np.int32(decided[0])))
