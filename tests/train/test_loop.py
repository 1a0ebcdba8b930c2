"""The loop: its order of work, and that no interruption can be seen in the end."""

import dataclasses
import functools
import itertools
import json
import math

import jax
import numpy as np
import optax
import pytest
from tiny import LoadRow, Regression, abstract_batch, mesh_of

from nlip_jax import phases
from nlip_jax.checkpoint import Checkpointer
from nlip_jax.data.members import Ranges
from nlip_jax.data.order import Epochs, Stream
from nlip_jax.data.pipeline import Reading
from nlip_jax.data.quarantine import Quarantine
from nlip_jax.errors import Preempted, RunError
from nlip_jax.methods.base import Episode, Joined
from nlip_jax.placement import Placement
from nlip_jax.train import loop, stop
from nlip_jax.train.joining import JoinedColumn
from nlip_jax.train.loop import Plan, Trainer, train
from nlip_jax.train.metrics import MetricsLog
from nlip_jax.train.optimizer import make_optimizer
from nlip_jax.train.state import StateFactory, fingerprint
from nlip_jax.train.step import compile_step, train_step

N, BATCH, TOTAL = 30, 8, 12
PLAN = Plan(
    total=TOTAL, log_every=1, checkpoint_every=5, evaluate_every=3, refresh_steps=(4, 8)
)

NEVER = Plan(total=20, log_every=0, checkpoint_every=0, evaluate_every=0, refresh_steps=())


@pytest.fixture(scope="module")
def compiled():
    """(factory of the state, step): compiled once for all tests."""
    mesh = mesh_of(8)
    schedule = optax.constant_schedule(0.05)
    tx = make_optimizer(name="adamw", schedule=schedule)
    batch = abstract_batch(BATCH, offset=jax.ShapeDtypeStruct((BATCH,), np.float32))
    factory = StateFactory(
        method=Regression(), tx=tx, placement=Placement(mesh=mesh), batch=batch, seed=0
    )
    step = functools.partial(train_step, method=Regression(), tx=tx, schedule=schedule, seed=0)
    return factory, compile_step(step, state=factory.abstract(), batch=batch, mesh=mesh)


@dataclasses.dataclass
class Run:
    """One workdir, trained in as many parts as a test likes."""

    workdir: object
    factory: StateFactory
    step: object
    plan: Plan = PLAN
    events: list = dataclasses.field(default_factory=list)

    def open(self) -> Checkpointer:
        return Checkpointer(self.workdir / "checkpoints", keep=3)

    def columns(self, episode: int) -> dict:
        """As a refresh would have left them: a function of the episode."""
        values = np.linspace(-1, 1, N, dtype=np.float32) * episode if episode else None
        return {"offset": JoinedColumn(Joined("offset"), values)}

    def refresh(self, state, episode):
        self.events.append(("refresh", int(state.step), episode.index))
        return state.replace(params=jax.tree.map(lambda a: a * 1.5, state.params))

    def evaluate(self, state, step):
        self.events.append(("evaluate", step))
        return {"eval/bias": float(state.params["bias"])}

    def trainer(self, checkpointer: Checkpointer, *, start: int, **fields) -> Trainer:
        defaults = {
            "method": Regression(on_refresh=self.refresh, refresh_steps=self.plan.refresh_steps),
            "step": self.step,
            "mesh": self.factory.placement.mesh,
            "order": Stream(
                draw=Epochs(Ranges(N)), batch_size=BATCH, seed=0, rows=np.arange(BATCH)
            ),
            "load": LoadRow(),
            "reading": Reading(threads=0),
            "quarantine": Quarantine(
                self.workdir / "quarantine.jsonl", source=range(N), max_bad_fraction=0.0
            ),
            "columns": self.columns,
            "plan": self.plan,
            "checkpointer": checkpointer,
            "meta": lambda step: {"position": step * BATCH},
            "episode": lambda index, state: Episode(index=index, map_examples=None, column=None),
            "evaluate": self.evaluate,
            "log": MetricsLog(self.workdir, resume_step=start, tensorboard=False),
        }
        return Trainer(**(defaults | fields))

    def part(self, **fields):
        """From the newest checkpoint as far as it goes."""
        checkpointer = self.open()
        try:
            latest = checkpointer.latest_step()
            if latest is None:
                state = self.factory.create()
            else:
                state = checkpointer.restore(latest, abstract=self.factory.abstract()).state
            return train(self.trainer(checkpointer, start=latest or 0, **fields), state)
        finally:
            checkpointer.close()

    def metrics(self) -> list[dict]:
        """The lines of metrics.jsonl without what depends on the clock."""
        lines = (self.workdir / "metrics.jsonl").read_text().splitlines()
        return [
            {key: value for key, value in json.loads(line).items() if not key.startswith("time/")}
            for line in lines
        ]


@pytest.fixture
def run(compiled, tmp_path):
    def make(name: str = "run", **fields) -> Run:
        (tmp_path / name).mkdir()
        return Run(tmp_path / name, *compiled, **fields)

    return make


@pytest.fixture(scope="module")
def whole(compiled, tmp_path_factory):
    """The run that nothing happened to: (final state, its metrics)."""
    made = Run(tmp_path_factory.mktemp("whole"), *compiled)
    return made.part(), made.metrics()


def assert_equal_states(first, second) -> None:
    jax.tree.map(np.testing.assert_array_equal, jax.device_get(first), jax.device_get(second))


class Killed(BaseException):
    """Nothing catches it, so what lies on disk is what a kill would leave."""


# --- what is due when -----------------------------------------------------------------------------


def test_what_is_due_when():
    steps = range(TOTAL + 1)
    assert [PLAN.episode(step) for step in steps] == [0] * 4 + [1] * 4 + [2] * 5
    assert [s for s in steps[1:] if PLAN.checkpoint_due(s)] == [3, 4, 5, 6, 8, 9, 10, 12]
    assert [s for s in steps[1:] if PLAN.evaluation_due(s)] == [3, 6, 9]
    assert [s for s in range(1, 21) if NEVER.checkpoint_due(s)] == [20]
    assert not any(NEVER.evaluation_due(s) for s in range(21))


# --- order ----------------------------------------------------------------------------------------


def test_the_order_of_work(run):
    """What may be repeated after a kill comes after the checkpoint it starts from."""
    made = run()
    events = made.events

    class Recorded:
        directory = None

        def save(self, step, *, state, meta):
            events.append(("save", step, int(state.episode), meta["position"]))

        def wait(self):
            events.append(("wait",))

    class Log:
        def write(self, step, values):
            events.append(("log", step, set(values)))

    train(made.trainer(Recorded(), start=0, log=Log()), made.factory.create())
    logged = [event[1] for event in events if event[0] == "log" and "train/loss" in event[2]]
    assert logged == list(range(1, TOTAL + 1))
    assert [event for event in events if event[0] != "log"] == [
        ("save", 3, 0, 24),
        ("evaluate", 3),
        ("save", 4, 0, 32),
        ("wait",),
        ("refresh", 4, 1),
        ("save", 5, 1, 40),
        ("save", 6, 1, 48),
        ("evaluate", 6),
        ("save", 8, 1, 64),
        ("wait",),
        ("refresh", 8, 2),
        ("save", 9, 2, 72),
        ("evaluate", 9),
        ("save", 10, 2, 80),
        ("save", 12, 2, 96),
    ]
    for step in range(1, TOTAL + 1):  # a step is logged before it is saved
        names = [event[0] for event in events if event[1:2] == (step,)]
        assert names[0] == "log"


def test_columns_are_joined_by_id_and_zero_until_known(run):
    made, seen = run(), []

    def step(state, batch):
        seen.append((jax.device_get(batch["offset"]), sorted(batch)))
        return made.step(state, batch)

    made.part(step=step)
    order = made.trainer(None, start=0).order
    for number, (offset, names) in enumerate(seen):
        values = made.columns(PLAN.episode(number))["offset"].values
        ids = order.block(number).ids
        np.testing.assert_array_equal(offset, np.zeros(BATCH) if values is None else values[ids])
        assert names == ["image", "offset", "tokens"]  # ids stay on the host


def test_metrics_of_every_step_and_evaluation(whole):
    _, metrics = whole
    assert [line["step"] for line in metrics if "train/loss" in line] == list(range(1, TOTAL + 1))
    assert [line["step"] for line in metrics if "eval/bias" in line] == [3, 6, 9]
    names = {"train/loss", "train/grad_norm", "train/learning_rate", "data/failed_examples"}
    by_group = {"train/grad_norm/w", "train/grad_norm/bias"}
    assert {"step"} | names | by_group == metrics[0].keys()


def test_no_log_no_file(run):
    made = run(plan=dataclasses.replace(PLAN, log_every=5))
    made.part(log=None)
    assert made.metrics() == []


def test_nothing_crosses_to_the_devices_unseen(run):
    """A step that would pull a host array along, or push one back, is an error."""
    made = run()

    def step(state, batch):
        state, metrics = made.step(state, batch)
        return state, metrics | {"loss": metrics["loss"] + np.ones((), np.float32)}

    with pytest.raises(Exception, match=r"[Dd]isallowed .*transfer"):
        made.part(step=step)


# --- interrupted ----------------------------------------------------------------------------------


@pytest.mark.parametrize("stop_at", range(TOTAL))
def test_stopped_at_any_step_it_ends_the_same(run, whole, stop_at, monkeypatch):
    made = run()
    with monkeypatch.context() as patch:
        patch.setattr(stop, "requested", lambda step=None: step == stop_at)
        with pytest.raises(Preempted, match=f"at step {stop_at} of {TOTAL}; run the same command"):
            made.part()
    assert made.open().latest_step() == stop_at
    assert_equal_states(made.part(), whole[0])
    assert made.metrics() == whole[1]


@pytest.mark.parametrize("kill_at", [1, 4, 7, 8, 9, 11])
def test_killed_before_any_batch_it_ends_the_same(run, whole, kill_at):
    made, calls = run(), []

    def step(state, batch):
        calls.append(1)
        if len(calls) == kill_at + 1:
            raise Killed
        return made.step(state, batch)

    with pytest.raises(Killed):
        made.part(step=step)
    assert_equal_states(made.part(), whole[0])
    assert made.metrics() == whole[1]


@pytest.mark.parametrize("phase", ["refresh step=4", "refresh step=8", "evaluate step=6"])
def test_killed_in_what_follows_a_checkpoint_it_ends_the_same(run, whole, phase, monkeypatch):
    def enter(name, **details):
        if phase == f"{name} step={details.get('step')}":
            raise Killed

    made = run()
    with monkeypatch.context() as patch:
        patch.setattr(phases, "enter", enter)
        with pytest.raises(Killed):
            made.part()
    assert_equal_states(made.part(), whole[0])
    assert made.metrics() == whole[1]
    assert [event[:2] for event in made.events].count(("refresh", 4)) == 1


def test_a_finished_run_has_nothing_left_to_do(run, whole):
    made = run()
    made.part()
    made.events.clear()
    assert_equal_states(made.part(), whole[0])
    assert made.events == [] and made.metrics() == whole[1]


def test_a_longer_run_goes_on_where_the_shorter_one_ended(run, whole):
    made = run(plan=dataclasses.replace(PLAN, total=8))
    made.part()
    made.plan = PLAN  # the refresh at step 8 was not due in a run of 8 steps
    assert_equal_states(made.part().params, whole[0].params)


def test_a_refresh_starts_from_a_checkpoint_on_disk(run):
    made = run()

    def refresh(state, episode):
        assert made.open().latest_step() == int(state.step)
        return state

    made.refresh = refresh
    made.part()


# --- not finite -----------------------------------------------------------------------------------


def spoiled(made: Run, *, at: int):
    """A step whose loss is not finite from step `at` on."""
    steps, bad = itertools.count(1), {"loss": jax.device_put(np.float32(math.nan))}

    def step(state, batch):
        state, metrics = made.step(state, batch)
        return state, metrics | (bad if next(steps) >= at else {})

    return step


@pytest.mark.parametrize(("at", "last"), [(2, "none"), (5, "4"), (8, "6")])
def test_a_loss_that_is_not_finite_names_the_step_and_the_way_back(run, at, last):
    """Even where the log looks only at every tenth step."""
    made = run(plan=dataclasses.replace(PLAN, log_every=10))
    with pytest.raises(RunError) as error:
        made.part(step=spoiled(made, at=at))
    place = "none" if last == "none" else str(made.workdir / "checkpoints" / last)
    words = [f"loss is nan at step {at};", f"checkpoint is {place};", "learning_rate"]
    assert all(word in str(error.value) for word in words), error.value
    assert (made.open().latest_step() or 0) < at


def test_a_run_that_is_stopped_does_not_save_what_is_not_finite(run, monkeypatch):
    monkeypatch.setattr(stop, "requested", lambda step=None: step == 2)
    made = run(plan=dataclasses.replace(PLAN, log_every=10))
    with pytest.raises(RunError, match="at step 2"):
        made.part(step=spoiled(made, at=2))
    assert made.open().latest_step() is None


def test_metrics_are_read_now_and_then_even_where_nobody_asks(run, monkeypatch):
    monkeypatch.setattr(loop, "_MAX_UNREAD", 3)
    made = run(plan=NEVER)
    with pytest.raises(RunError, match="at step 4"):
        made.part(step=spoiled(made, at=4))


def test_the_host_does_not_run_away_from_the_devices(run, monkeypatch):
    """Where no log makes it wait, it waits for the metrics of the step eight before."""
    waited = []

    def wait(item):
        if isinstance(item, tuple):  # of the loop; the watch over the devices has metrics alone
            waited.append(item[0])

    monkeypatch.setattr(jax, "block_until_ready", wait)
    made = run(plan=NEVER)
    made.part()
    assert waited == list(range(1, 20 - loop._MAX_AHEAD + 1))


def test_states_differ_where_they_should(whole, compiled):
    factory, _ = compiled
    assert fingerprint(whole[0].params) != fingerprint(factory.create().params)
    assert int(whole[0].episode) == 2 and int(whole[0].step) == TOTAL
