"""Loss spikes: judged in the step, recorded once, skipped without a trace in the parameters."""

import dataclasses
import functools
import json
import math

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from tiny import LoadRow, Regression, abstract, abstract_batch, mesh_of, state_of

from configs import base
from nlip_jax import build, sharding
from nlip_jax.checkpoint import Checkpointer
from nlip_jax.config import Clock
from nlip_jax.data.members import Ranges
from nlip_jax.data.order import Epochs, Stream
from nlip_jax.data.pipeline import Reading
from nlip_jax.data.quarantine import Quarantine
from nlip_jax.errors import Preempted, RunError, UsageError
from nlip_jax.methods.base import Episode, Joined
from nlip_jax.placement import Placement
from nlip_jax.train import spikes, stop
from nlip_jax.train.grad_norms import grad_norms
from nlip_jax.train.joining import JoinedColumn
from nlip_jax.train.loop import Plan, Trainer, train
from nlip_jax.train.metrics import MetricsLog, read_metrics
from nlip_jax.train.optimizer import make_optimizer
from nlip_jax.train.spike_log import SpikeLog
from nlip_jax.train.spikes import SpikePolicy
from nlip_jax.train.state import StateFactory
from nlip_jax.train.step import compile_step, train_step

N, BATCH, TOTAL = 240, 8, 30  # one epoch: every example is in one step
PLAN = Plan(total=TOTAL, log_every=4, checkpoint_every=5, evaluate_every=0, refresh_steps=())
ORDER = Stream(draw=Epochs(Ranges(N)), batch_size=BATCH, seed=0, rows=np.arange(BATCH))
RECORD = SpikePolicy(skips=False, z_score=8.0, window=6, max_skipped=2)
SKIP = dataclasses.replace(RECORD, skips=True)


@functools.cache
def compiled(policy: SpikePolicy | None):
    """(factory of the state, step), compiled once for all tests."""
    mesh, schedule = mesh_of(2), optax.constant_schedule(0.01)
    tx = make_optimizer(name="adamw", schedule=schedule, clip_norm=1.0)
    batch = abstract_batch(BATCH, offset=jax.ShapeDtypeStruct((BATCH,), np.float32))
    factory = StateFactory(
        method=Regression(),
        tx=tx,
        placement=Placement(mesh=mesh),
        batch=batch,
        seed=0,
        ema=True,
        watches_loss=policy is not None,
    )
    step = functools.partial(
        train_step,
        method=Regression(),
        tx=tx,
        schedule=schedule,
        seed=0,
        ema_decay=0.9,
        spike_policy=policy,
    )
    return factory, compile_step(step, state=factory.abstract(), batch=batch, mesh=mesh)


@dataclasses.dataclass
class Run:
    """One workdir, whose targets are moved far away at some steps: step -> offset."""

    workdir: object
    policy: SpikePolicy | None
    planted: dict[int, float]
    plan: Plan = PLAN
    keep: int = 2
    after: dict = dataclasses.field(default_factory=dict)  # step -> state on the host

    def columns(self, episode: int) -> dict[str, JoinedColumn]:
        values = np.zeros(N, np.float32)
        for step, offset in self.planted.items():
            values[ORDER.block(step - 1).ids] = offset
        return {"offset": JoinedColumn(Joined("offset"), values)}

    def step(self, state, batch):
        state, metrics = compiled(self.policy)[1](state, batch)
        self.after[int(state.step)] = jax.device_get(state)
        return state, metrics

    def part(self):
        """From the newest checkpoint as far as it goes."""
        factory, _ = compiled(self.policy)
        checkpointer = Checkpointer(self.workdir / "checkpoints", keep=self.keep)
        latest = checkpointer.latest_step()
        log = SpikeLog(
            self.workdir,
            policy=self.policy,
            rows=ORDER.rows,
            batch_size=ORDER.batch_size,
            resume_step=latest or 0,
            writes=True,
        )
        trainer = Trainer(
            method=Regression(refresh_steps=self.plan.refresh_steps),
            step=self.step,
            mesh=mesh_of(2),
            order=ORDER,
            load=LoadRow(),
            reading=Reading(threads=0),
            quarantine=Quarantine(
                self.workdir / "quarantine.jsonl", source=range(N), max_bad_fraction=0.0
            ),
            columns=self.columns,
            plan=self.plan,
            checkpointer=checkpointer,
            meta=lambda step: {},
            episode=lambda index, state: Episode(index=index, map_examples=None, column=None),
            evaluate=None,
            log=MetricsLog(self.workdir, resume_step=latest or 0, tensorboard=False),
            spikes=None if self.policy is None else log,
            stops_at_non_finite=self.policy is None or not self.policy.skips,
        )
        try:
            if latest is None:
                state = factory.create()
            else:
                state = checkpointer.restore(latest, abstract=factory.abstract()).state
            return train(trainer, state)
        finally:
            checkpointer.close()

    def lines(self) -> list[dict]:
        return read_metrics(self.workdir / "spikes.jsonl")

    def checkpoints(self) -> list[int]:
        return sorted(int(p.name) for p in (self.workdir / "checkpoints").iterdir())


@pytest.fixture
def run(tmp_path):
    def make(name: str = "run", *, policy=RECORD, planted=None, **fields) -> Run:
        (tmp_path / name).mkdir()
        return Run(tmp_path / name, policy, planted or {}, **fields)

    return make


def assert_equal(first, second) -> None:
    jax.tree.map(np.testing.assert_array_equal, jax.device_get(first), jax.device_get(second))


# --- what is a spike ------------------------------------------------------------------------------


@functools.cache
def guard(policy: SpikePolicy):
    """(state, function of state and loss): what the step calls."""
    return state_of(Regression(), {}, loss_watch=spikes.new_watch()), jax.jit(
        lambda state, loss: spikes.guard(state, state, loss=loss, grad_norm=loss, policy=policy)
    )


def watch_after(losses, *, policy=RECORD):
    """(watch, metrics of the last step) after some losses."""
    (state, judge), metrics = guard(policy), None
    for loss in losses:
        state, metrics = judge(state, jnp.float32(loss))
    return state.loss_watch, metrics


@pytest.mark.parametrize("count", [1, 2, 5, 40])
def test_mean_and_deviation_are_exponentially_weighted(count):
    """Against the definition in float64: weights that sum to 1, whatever the number of losses."""
    losses = np.random.default_rng(0).normal(3, 0.2, count)
    watch, _ = watch_after(losses)
    weights = (1 - 1 / RECORD.window) ** np.arange(count)[::-1]
    weights /= weights.sum()
    mean = weights @ losses
    np.testing.assert_allclose(watch.mean, mean, rtol=1e-6)
    np.testing.assert_allclose(watch.variance, weights @ (losses - mean) ** 2, rtol=1e-4, atol=1e-9)
    assert watch.count == count and watch.mean.dtype == watch.variance.dtype == jnp.float32


@pytest.mark.parametrize(
    ("losses", "is_spike"),
    [
        ([3.0, 3.1, 2.9, 3.1, 2.9, 3.0, 3.2], False),
        ([3.0, 3.1, 2.9, 3.1, 2.9, 3.0, 9.0], True),
        ([3.0, 3.1, 2.9, 3.1, 2.9, 3.0, -9.0], False),  # good news
        ([3.0, 3.1, 2.9, 3.1, 9.0], False),  # before the end of the window
        ([3.0, math.nan], True),
        ([3.0] * 20 + [3.0 + 1e-6], False),  # rounding, where the deviation is 0
        ([3.0] * 20 + [3.1], True),
        ([0.0] * 20, False),
        ([3.0, 3.1, 2.9, 3.1, 2.9, 3.0, math.inf], True),
    ],
)
def test_what_is_a_spike(losses, is_spike):
    _, metrics = watch_after(losses)
    assert metrics["spike"] == is_spike


def test_a_recorded_spike_neither_hides_the_next_nor_lasts_for_ever():
    usual = [3.0, 3.1, 2.9, 3.1, 2.9, 3.0]
    watch, metrics = watch_after([*usual, 1e30, 3.0, 2.9, 9.0])
    assert metrics["spike"] == 1 and watch.mean < 4
    found = [watch_after([*usual, *[9.0] * times])[1]["spike"] for times in (1, 2, 20)]
    assert found[0] == 1 and found[-1] == 0  # a level that stays is the new normal


def test_a_spike_that_is_skipped_leaves_the_watch_as_it_was():
    usual = [3.0, 3.1, 2.9, 3.1, 2.9, 3.0]
    before, _ = watch_after(usual, policy=SKIP)
    watch, metrics = watch_after([*usual, 9.0, math.nan], policy=SKIP)
    assert (watch.mean, watch.variance, watch.count) == (before.mean, before.variance, before.count)
    assert watch.skipped == watch.in_a_row == metrics["skipped_in_a_row"] == 2
    watch, _ = watch_after([*usual, 9.0, 3.0], policy=SKIP)
    assert watch.skipped == 1 and watch.in_a_row == 0


def test_norms_by_tower():
    rng = np.random.default_rng(0)
    shapes = {
        "image": {"a": (3, 4), "b": (5,)},
        "image_projection": {"kernel": (4, 2)},
        "text": {"c": (2, 2)},
        "text_projection": {"kernel": (2, 2)},
        "log_scale": (),
    }
    grads = jax.tree.map(rng.standard_normal, shapes, is_leaf=lambda x: isinstance(x, tuple))
    found = grad_norms(grads)

    def norm(*trees):
        return math.sqrt(sum((np.asarray(a) ** 2).sum() for a in jax.tree.leaves(trees)))

    expected = {
        "grad_norm": norm(grads),
        "grad_norm/image": norm(grads["image"], grads["image_projection"]),
        "grad_norm/text": norm(grads["text"], grads["text_projection"]),
        "grad_norm/log_scale": norm(grads["log_scale"]),
    }
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        np.testing.assert_allclose(found[name], value, rtol=1e-6)


# --- in the step ----------------------------------------------------------------------------------


def test_recording_changes_no_bit_of_the_training(run):
    planted = {12: 100.0}
    recorded = run("recorded", policy=RECORD, planted=planted).part()
    off = run("off", policy=None, planted=planted).part()
    assert off.loss_watch is None
    assert_equal(recorded.replace(loss_watch=None), off)


def test_a_skipped_update_leaves_no_trace(run):
    made = run(policy=SKIP, planted={12: 100.0})
    made.part()
    before, after = made.after[11], made.after[12]
    counts = {"skipped": np.int32(1), "in_a_row": np.int32(1)}
    assert_equal(after, before.replace(step=12, loss_watch=before.loss_watch.replace(**counts)))
    following = made.after[13]
    assert all((following.params[name] != after.params[name]).any() for name in after.params)
    assert following.loss_watch.in_a_row == 0 and following.loss_watch.count == 12
    assert following.method_state["updates"] == 12  # of 13 steps


def test_skipping_takes_the_state_s_memory_and_gives_its_types_back():
    factory, step = compiled(SKIP)
    state = factory.create()
    batch = {name: np.ones(value.shape, value.dtype) for name, value in factory.batch.items()}
    with jax.transfer_guard("disallow"):
        after, _ = step(state, sharding.to_devices(batch, mesh_of(2)))
    assert abstract(after) == factory.abstract()
    assert state.params["w"].is_deleted()


def test_the_learning_rate_that_is_logged_is_the_one_that_is_used():
    """Left-out updates do not count for the schedule."""
    state = compiled(SKIP)[0].create()
    watch = state.loss_watch.replace(skipped=jnp.int32(3))
    state = state.replace(step=jnp.int32(10), loss_watch=watch)
    assert spikes.num_updates(state) == 7
    assert spikes.num_updates(state.replace(loss_watch=None)) == 10


# --- in the loop ----------------------------------------------------------------------------------


@pytest.mark.parametrize("policy", [RECORD, SKIP])
def test_a_spike_is_written_down(run, policy, capsys):
    made = run(policy=policy, planted={12: 100.0})
    made.part()
    (line,) = made.lines()
    action = "skipped" if policy.skips else "recorded"
    assert line["step"] == 12 and line["action"] == action and line["episode"] == 0
    assert line["example_ids"] == ORDER.block(11).ids.tolist()
    np.testing.assert_allclose(line["loss"], 1e4, rtol=0.1)
    watch = made.after[11].loss_watch
    assert (line["mean"], line["deviation"]) == (watch.mean, np.sqrt(watch.variance))
    assert line["z"] == pytest.approx((line["loss"] - line["mean"]) / line["deviation"], rel=1e-5)
    norms = [line[f"grad_norm/{name}"] for name in ("w", "bias")]
    assert line["grad_norm"] == pytest.approx(math.hypot(*norms), rel=1e-6)
    printed = capsys.readouterr().err
    assert printed.count("is a spike") == 1 and f"{action}; see its batch" in printed
    assert f"`python -m nlip_jax replay --workdir={made.workdir} --step=12`" in printed


def test_a_quiet_run_writes_no_file(run):
    made = run()
    made.part()
    assert not (made.workdir / "spikes.jsonl").exists()


@pytest.mark.parametrize("policy", [RECORD, SKIP])
def test_stopped_at_any_step_it_ends_the_same(run, policy, monkeypatch):
    planted = {12: 100.0, 13: 100.0, 17: 50.0}
    whole, made = (run(name, policy=policy, planted=planted) for name in ("whole", "parts"))
    expected = whole.part()
    for stop_at in (11, 12, 13, 18):
        with monkeypatch.context() as patch:
            patch.setattr(stop, "requested", lambda step=None, at=stop_at: step == at)
            with pytest.raises(Preempted):
                made.part()
    assert_equal(made.part(), expected)
    assert made.lines() == whole.lines() and len(made.lines()) == 3


def test_what_a_killed_run_repeats_stands_once(run):
    whole, made = (run(name, planted={12: 100.0, 17: 100.0}) for name in ("whole", "parts"))
    whole.part()
    made.plan = dataclasses.replace(PLAN, total=15)
    made.part()
    late = {"step": 16, "loss": 1.0}  # of steps whose checkpoint was never finished
    with (made.workdir / "spikes.jsonl").open("a") as file:
        file.write(json.dumps(late) + '\n{"step": 17')
    made.plan = PLAN
    made.part()
    assert made.lines() == whole.lines() and [line["step"] for line in made.lines()] == [12, 17]


def test_the_checkpoint_before_a_spike_stays(run, monkeypatch):
    """Also where the run is stopped in between, and that of the oldest of many spikes goes."""
    planted = {8: 50.0, 12: 100.0, 18: 200.0, 23: 400.0}
    made = run(planted=planted, keep=1)
    with monkeypatch.context() as patch:
        patch.setattr(stop, "requested", lambda step=None: step == 20)
        with pytest.raises(Preempted):
            made.part()
    assert made.checkpoints() == [5, 10, 15, 20]
    made.part()
    assert [line["step"] for line in made.lines()] == list(planted)
    assert made.checkpoints() == [10, 15, 20, 30]


def test_a_loss_that_is_not_finite_ends_a_run_that_records(run):
    made = run(planted={12: math.inf})
    with pytest.raises(RunError, match="loss is inf at step 12"):
        made.part()
    assert [line["step"] for line in made.lines()] == [12]


def test_a_loss_that_is_not_finite_is_skipped(run):
    made = run(policy=SKIP, planted={2: math.inf, 12: math.inf, 13: math.inf})
    state = made.part()
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(jax.device_get(state.params)))
    assert [line["step"] for line in made.lines()] == [2, 12, 13]
    assert int(state.step) == TOTAL and int(state.loss_watch.skipped) == 3


def test_too_many_in_a_row(run):
    made = run(policy=SKIP, planted=dict.fromkeys(range(12, 20), 100.0))
    words = r"steps 12 to 14 .*max_skipped=2 in a row.*replay .*--step=14"
    with pytest.raises(RunError, match=words):
        made.part()
    assert [line["step"] for line in made.lines()] == [12, 13, 14]
    with pytest.raises(RunError, match=words):  # again from the checkpoint: it is in the state
        made.part()
    assert [line["step"] for line in made.lines()] == [12, 13, 14]


def test_an_episode_begins_with_a_new_watch(run):
    """What a loss means changes with the columns."""
    plan = dataclasses.replace(PLAN, refresh_steps=(15,))
    made = run(planted=dict.fromkeys(range(16, TOTAL + 1), 100.0), plan=plan)
    made.part()
    assert made.lines() == []
    assert made.after[15].loss_watch.count == 15 and made.after[16].loss_watch.count == 1


# --- configs --------------------------------------------------------------------------------------


def config(**fields):
    made = base.get_config()
    made.update_from_flattened_dict({f"spikes.{name}": value for name, value in fields.items()})
    return made


def test_policies_by_name():
    clock = Clock(batch_size=10, num_examples=1000, total_steps=500)
    made = build.make_spike_policy(config(), clock=clock)
    assert made == SpikePolicy(skips=False, z_score=8.0, window=200, max_skipped=20)
    assert build.make_spike_policy(config(action="skip", window="1 epochs"), clock=clock) == (
        SpikePolicy(skips=True, z_score=8.0, window=100, max_skipped=20)
    )
    assert build.make_spike_policy(config(action="off"), clock=clock) is None
    with pytest.raises(UsageError, match=r"spikes\.action='drop': choose one of off, record, skip"):
        build.make_spike_policy(config(action="drop"), clock=clock)
    with pytest.raises(UsageError, match=r"spikes\.window='1 steps' is 1 steps: .*2 or more"):
        build.make_spike_policy(config(window="1 steps"), clock=clock)
