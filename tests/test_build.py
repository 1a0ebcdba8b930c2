"""From names to objects: choices that are listed, and what a run's length may depend on."""

import dataclasses
import math

import pytest
import tiny

from configs import base
from nlip_jax import build, sharding
from nlip_jax.config import Clock
from nlip_jax.errors import RunError, UsageError
from nlip_jax.methods.clip import Clip
from nlip_jax.methods.nlip import Nlip

RSQRT = {"schedule.name": "rsqrt"}
TABLE = {"one": 1, "two": 2}


def config(**fields):
    made = base.get_config()
    made.total = "100 steps"
    made.nlip.warmup = "20 steps"
    made.update_from_flattened_dict(fields)
    return made


# --- names ----------------------------------------------------------------------------------------


def test_lookup():
    assert build.lookup("two", TABLE, field="field") == 2
    assert build.lookup("math:hypot", TABLE, field="field") is math.hypot
    with pytest.raises(UsageError, match=r"config\.field='three': choose one of one, two"):
        build.lookup("three", TABLE, field="field")


@pytest.mark.parametrize("name", ["math:no_such_name", "no_such_module:x", ":x", "math:"])
def test_what_cannot_be_imported(name):
    with pytest.raises(UsageError, match=r"config\.field=.*cannot be imported"):
        build.lookup(name, TABLE, field="field")


def test_a_method_of_ones_own_is_imported():
    made = build.make_method(
        config(method="test_build:own_method"), model=None, mesh=None, clock=None
    )
    assert isinstance(made, Clip)


def own_method(config, *, model, mesh, clock, texts):
    return tiny.clip()


# --- length ---------------------------------------------------------------------------------------


def nlip_of(**fields) -> Nlip:
    made = config(**fields)
    clock = build.make_clock(made, num_examples=25_600)
    model = build.make_model(made, vocab_size=100)
    return build.make_method(made, model=model, mesh=tiny.mesh_of(1), clock=clock)


def test_when_noise_is_estimated():
    assert nlip_of().refresh_steps == (20,)
    every = {"nlip.reestimate_every": "30 steps"}
    assert nlip_of(**every).refresh_steps == (20, 50, 80)
    assert nlip_of(**every, total="80 steps").refresh_steps == (20, 50)  # none at the very end
    assert nlip_of(**{"nlip.reestimate_every": "0.25 epochs"}).refresh_steps == (20, 45, 70, 95)


@pytest.mark.parametrize("warmup", ["0 steps", "100 steps", "2 epochs"])
def test_an_estimate_outside_of_the_run(warmup):
    with pytest.raises(UsageError, match=r"config\.nlip\.warmup=.*inside the run of 100"):
        nlip_of(**{"nlip.warmup": warmup})


@pytest.mark.parametrize("percentiles", [(), (1.0,), (99.0, 1.0), (5.0, 5.0)])
def test_percentiles_that_are_none(percentiles):
    with pytest.raises(UsageError, match=r"nlip\.clip_percentiles=.*\(low, high\)"):
        nlip_of(**{"nlip.clip_percentiles": percentiles})


@pytest.mark.parametrize(
    ("fields", "may"),
    [
        ({"schedule.name": "constant", "schedule.warmup": "5 steps"}, True),
        ({"schedule.name": "rsqrt", "schedule.warmup": "1 epochs"}, True),
        ({"schedule.name": "cosine", "schedule.warmup": "5 steps"}, False),
        ({"schedule.name": "constant", "schedule.warmup": "5 %"}, False),
        ({"schedule.warmup": "5 steps", **RSQRT, "schedule.timescale": "9 %"}, False),
        ({"schedule.name": "constant", "schedule.warmup": "5 steps", "nlip.warmup": "9 %"}, False),
        (
            {
                "schedule.name": "constant",
                "schedule.warmup": "5 steps",
                "nlip.reestimate_every": "9 %",
            },
            False,
        ),
        (
            {
                "schedule.name": "constant",
                "schedule.warmup": "5 steps",
                "nlip.warmup": "9 %",  # a method of the user's own may read it too
                "method": "clip",
            },
            False,
        ),
    ],
)
def test_what_may_be_prolonged(fields, may):
    assert build.may_grow(config(**fields)) == may


def test_a_longer_run_begins_like_the_shorter_one():
    """What `may_grow` promises: same learning rates, same refreshes, up to the shorter end."""
    fields = {
        "schedule.name": "rsqrt",
        "schedule.warmup": "5 steps",
        "schedule.timescale": "20 steps",
        "nlip.reestimate_every": "15 steps",
    }
    rates, refreshes = [], []
    for total in ("50 steps", "100 steps"):
        made = config(**fields, total=total)
        assert build.may_grow(made)
        clock = build.make_clock(made, num_examples=1000)
        schedule = build.make_learning_rate(made, clock=clock)
        rates.append([float(schedule(step)) for step in range(50)])
        model = build.make_model(made, vocab_size=100)
        method = build.make_method(made, model=model, mesh=tiny.mesh_of(1), clock=clock)
        refreshes.append([step for step in method.refresh_steps if step < 50])
    assert rates[0] == rates[1] and refreshes[0] == refreshes[1]


def test_a_run_of_no_steps():
    with pytest.raises(UsageError, match="at least one step"):
        build.make_clock(config(total="0 steps"), num_examples=1000)


def test_the_plan_counts_in_steps():
    made = config(**{"log.every": "512 examples", "checkpoint.every": "10 %"})
    clock = build.make_clock(made, num_examples=1000)
    assert clock == Clock(batch_size=256, num_examples=1000, total_steps=100)
    plan = build.make_plan(made, clock=clock, refresh_steps=(20,))
    assert dataclasses.asdict(plan) == {
        "total": 100,
        "log_every": 2,
        "checkpoint_every": 10,
        "evaluate_every": 0,
        "refresh_steps": (20,),
    }


# --- processes ------------------------------------------------------------------------------------


@pytest.fixture
def processes(monkeypatch):
    """Pretends to be one of two processes, and that the first one failed or not."""

    def pretend(index: int, *, failed: bool) -> None:
        monkeypatch.setattr(sharding.jax, "process_index", lambda: index)
        monkeypatch.setattr(sharding.jax, "process_count", lambda: 2)
        monkeypatch.setattr(sharding.multihost_utils, "broadcast_one_to_all", lambda value: failed)

    return pretend


def fail():
    raise UsageError("no such shard")


def test_only_the_first_process_writes(processes):
    done = []
    processes(0, failed=False)
    sharding.on_leader(lambda: done.append("first"))
    processes(1, failed=False)
    sharding.on_leader(lambda: done.append("second"))
    assert done == ["first"]


def test_all_processes_fail_with_the_first_one(processes):
    processes(0, failed=True)
    with pytest.raises(UsageError, match="no such shard"):
        sharding.on_leader(fail)
    processes(1, failed=True)
    with pytest.raises(RunError, match="the first process"):
        sharding.on_leader(fail)
