"""What depends on the length of a run: plan, schedule, optimizer."""

import dataclasses

from ml_collections import ConfigDict

from nlip_jax.config import Clock, flatten, is_runtime
from nlip_jax.errors import UsageError
from nlip_jax.train.loop import Plan
from nlip_jax.train.optimizer import Optimizer, make_optimizer
from nlip_jax.train.schedule import OPEN_ENDED, Schedule, make_schedule


def make_clock(config: ConfigDict, *, num_examples: int) -> Clock:
    """Converts the durations of this run."""
    clock = Clock(batch_size=config.batch_size, num_examples=num_examples)
    total = clock.steps(config.total, field="total")
    if total < 1:
        raise UsageError(f"config.total={config.total!r}: a run needs at least one step")
    return dataclasses.replace(clock, total_steps=total)


def make_plan(config: ConfigDict, *, clock: Clock, refresh_steps: tuple[int, ...]) -> Plan:
    """What is due when."""
    return Plan(
        total=clock.total_steps,
        log_every=clock.steps(config.log.every, field="log.every"),
        checkpoint_every=clock.steps(config.checkpoint.every, field="checkpoint.every"),
        evaluate_every=clock.steps(config.evaluation.every, field="evaluation.every"),
        refresh_steps=refresh_steps,
    )


def make_learning_rate(config: ConfigDict, *, clock: Clock) -> Schedule:
    """The schedule."""
    return make_schedule(
        name=config.schedule.name,
        peak=config.optimizer.learning_rate,
        warmup=clock.steps(config.schedule.warmup, field="schedule.warmup"),
        total=clock.total_steps,
        end=config.schedule.end,
        timescale=clock.steps(config.schedule.timescale, field="schedule.timescale"),
    )


def make_tx(config: ConfigDict, *, schedule: Schedule) -> Optimizer:
    """The optimizer."""
    fields = {k: v for k, v in config.optimizer.items() if k != "learning_rate"}
    return make_optimizer(schedule=schedule, **fields)


def may_grow(config: ConfigDict) -> bool:
    """Whether a finished run may be prolonged: nothing it did depended on its length."""
    shares = [
        name
        for name, value in flatten(config).items()
        if isinstance(value, str) and "%" in value and not is_runtime(name, tuple(config.runtime))
    ]
    return config.schedule.name in OPEN_ENDED and not shares
