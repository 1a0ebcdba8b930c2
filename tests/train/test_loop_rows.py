"""What a step tells of each row goes to its records, and nowhere else."""

import dataclasses
import functools
import json

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from tiny import LoadRow, Regression, abstract_batch, mesh_of

from nlip_jax import sharding
from nlip_jax.checkpoint import Checkpointer
from nlip_jax.data.members import Ranges
from nlip_jax.data.order import Epochs, Stream
from nlip_jax.data.pipeline import Reading
from nlip_jax.data.quarantine import Quarantine
from nlip_jax.errors import Preempted
from nlip_jax.methods.base import Episode
from nlip_jax.placement import Placement
from nlip_jax.train import stop
from nlip_jax.train.loop import Plan, Trainer, train
from nlip_jax.train.metrics import MetricsLog
from nlip_jax.train.online_losses import OnlineLosses, fragments
from nlip_jax.train.optimizer import make_optimizer
from nlip_jax.train.state import StateFactory
from nlip_jax.train.step import compile_step, train_step

N, BATCH, TOTAL = 20, 8, 10
PLAN = Plan(total=TOTAL, log_every=3, checkpoint_every=4, evaluate_every=0, refresh_steps=())


@dataclasses.dataclass(frozen=True, kw_only=True)
class Telling(Regression):
    """Tells the loss of each row."""

    def pair_loss(self, params, features, state, batch):
        output = super().pair_loss(params, features, state, batch)
        wanted = batch["tokens"].sum(-1) / 50 + batch["offset"]
        loss = (features["y"] - wanted) ** 2
        return output.replace(metrics=output.metrics | {"pair_loss": loss, "scalar": loss[0]})


@pytest.fixture(scope="module")
def compiled():
    mesh = mesh_of(8)
    schedule = optax.constant_schedule(0.05)
    tx = make_optimizer(name="adamw", schedule=schedule)
    batch = abstract_batch(BATCH, offset=jax.ShapeDtypeStruct((BATCH,), np.float32))
    factory = StateFactory(
        method=Telling(), tx=tx, placement=Placement(mesh=mesh), batch=batch, seed=0
    )
    step = functools.partial(train_step, method=Telling(), tx=tx, schedule=schedule, seed=0)
    return factory, compile_step(step, state=factory.abstract(), batch=batch, mesh=mesh)


class Run:
    """One workdir, trained from its newest checkpoint as far as it goes."""

    def __init__(self, workdir, compiled):
        self.workdir, (self.factory, self.step) = workdir, compiled

    def part(self, **fields):
        checkpointer = Checkpointer(self.workdir / "checkpoints", keep=3)
        latest = checkpointer.latest_step() or 0
        state = self.factory.create()
        if latest:
            state = checkpointer.restore(latest, abstract=self.factory.abstract()).state
        if "rows" not in fields:
            fields["rows"] = self.records(latest)
        trainer = Trainer(
            **{
                "method": Telling(),
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
                "columns": lambda episode: {"offset": Offset()},
                "plan": PLAN,
                "checkpointer": checkpointer,
                "meta": lambda step: {},
                "episode": lambda index, state: Episode(
                    index=index, map_examples=None, column=None
                ),
                "evaluate": None,
                "log": MetricsLog(self.workdir, resume_step=latest, tensorboard=False),
            }
            | fields
        )
        try:
            return train(trainer, state)
        finally:
            checkpointer.close()

    def records(self, resume_step: int) -> OnlineLosses:
        return OnlineLosses(
            self.workdir / "online",
            windows=[range(1, TOTAL + 1)],
            num_ids=N,
            resume_step=resume_step,
        )

    def kept(self) -> dict[int, list[tuple[int, float]]]:
        """Step -> (example, loss) of its rows, as they lie on disk."""
        found = {}
        for fragment in fragments(self.workdir / "online"):
            with np.load(fragment.path) as arrays:
                edges = np.cumsum(arrays["rows"])[:-1]
                ids, losses = (np.split(arrays[name], edges) for name in ("ids", "losses"))
                for step, *rows in zip(arrays["steps"].tolist(), ids, losses, strict=True):
                    assert step not in found
                    found[step] = list(zip(*(part.tolist() for part in rows), strict=True))
        return found


class Offset:
    def rows(self, ids):
        return np.zeros(len(ids), np.float32)


class Recorded:
    """Records that only tell what they were asked."""

    def __init__(self):
        self.events, self.told = [], {}

    def add(self, step, *, ids, told):
        self.events.append(("add", step))
        self.told[step] = ids, {name: sharding.to_host(value) for name, value in told.items()}

    def flush(self, step):
        self.events.append(("flush", step))


@pytest.fixture
def run(compiled, tmp_path):
    return Run(tmp_path, compiled)


@pytest.fixture(scope="module")
def whole(compiled, tmp_path_factory):
    """What the run keeps that nothing happens to."""
    made = Run(tmp_path_factory.mktemp("whole"), compiled)
    made.part()
    return made.kept()


def test_rows_come_with_their_examples_and_before_their_checkpoint(run):
    records, losses = Recorded(), []

    def step(state, batch):
        state, metrics = run.step(state, batch)
        losses.append(np.asarray(metrics["pair_loss"]))
        return state, metrics

    run.part(rows=records, step=step)
    order = Stream(draw=Epochs(Ranges(N)), batch_size=BATCH, seed=0, rows=np.arange(BATCH))
    for number in range(TOTAL):
        ids, told = records.told[number + 1]
        np.testing.assert_array_equal(ids, order.block(number).ids)
        assert set(told) == {"pair_loss"}
        np.testing.assert_array_equal(told["pair_loss"], losses[number])
    adds = [step for name, step in records.events if name == "add"]
    assert adds == list(range(1, TOTAL + 1))  # each once, in their order
    for save in (4, 8, 10):
        at = records.events.index(("flush", save))
        assert ("add", save) in records.events[:at] and ("add", save + 1) not in records.events[:at]


def test_only_scalars_are_logged(run):
    run.part()
    lines = [json.loads(line) for line in (run.workdir / "metrics.jsonl").read_text().splitlines()]
    assert all("train/scalar" in line and "train/pair_loss" not in line for line in lines)


def test_a_device_holds_its_own_rows_alone(compiled):
    factory, step = compiled
    batch = {
        "image": np.zeros((BATCH, 8, 8, 3), np.uint8),
        "tokens": np.zeros((BATCH, 6), np.int32),
        "offset": np.zeros(BATCH, np.float32),
    }
    _, metrics = step(factory.create(), sharding.to_devices(batch, factory.placement.mesh))
    assert {shard.data.shape for shard in metrics["pair_loss"].addressable_shards} == {(1,)}
    assert metrics["loss"].sharding.is_fully_replicated
    np.testing.assert_allclose(jnp.mean(metrics["pair_loss"]), metrics["loss"], rtol=1e-6)


@pytest.mark.parametrize("stop_at", range(TOTAL))
def test_stopped_at_any_step_it_keeps_the_same(run, whole, stop_at, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(stop, "requested", lambda step=None: step == stop_at)
        with pytest.raises(Preempted):
            run.part()
    assert set(run.kept()) == set(range(1, stop_at + 1))
    run.part()
    assert run.kept() == whole


class Killed(BaseException):
    """Nothing catches it, so what lies on disk is what a kill would leave."""


@pytest.mark.parametrize("kill_at", [1, 4, 7, 8, 9])
def test_killed_before_any_batch_it_keeps_the_same(run, whole, kill_at):
    calls = []

    def step(state, batch):
        calls.append(1)
        if len(calls) == kill_at + 1:
            raise Killed
        return run.step(state, batch)

    with pytest.raises(Killed):
        run.part(step=step)
    assert max(run.kept(), default=0) <= kill_at
    run.part()
    assert run.kept() == whole


def test_without_records_rows_are_nobodys(run, compiled, tmp_path):
    state = run.part()
    (tmp_path / "other").mkdir()
    other = Run(tmp_path / "other", compiled).part(rows=None)
    jax.tree.map(np.testing.assert_array_equal, jax.device_get(state), jax.device_get(other))
    assert not (tmp_path / "other" / "online").exists()
