"""Noise estimated from what training saw: no pass, the same columns whatever was stopped."""

import json

import numpy as np
import pytest

from nlip_jax.data.members import Ranges
from nlip_jax.data.order import Epochs, Stream
from nlip_jax.train import loop
from nlip_jax.train.online_losses import fragments

PLAIN = """
from configs import quickstart
def get_config(arg=None):
    config = quickstart.get_config(arg)
    config.evaluators.zero_shot, config.evaluators.retrieval = {}, {}
    return config
"""


@pytest.fixture
def online(tiny, tmp_path) -> tuple[str, ...]:
    """The smallest run of all, without evaluation."""
    (tmp_path / "plain.py").write_text(PLAIN)
    return (
        f"--config={tmp_path / 'plain.py'}",
        *(argument for argument in tiny[1:] if "evaluators" not in argument),
        "--config.nlip.estimate=online",
        "--config.nlip.online_window=8 steps",
        "--config.nlip.reestimate_every=2 steps",
        "--config.report.enabled=False",
        "--config.log.tensorboard=False",
    )


def columns_of(workdir) -> dict[str, bytes]:
    parts = (workdir / "columns").glob("*/*/part-*.npy")
    return {str(path.relative_to(workdir)): path.read_bytes() for path in parts}


def results_of(workdir) -> dict[str, float]:
    results = json.loads((workdir / "results.json").read_text())
    return {name: value for name, value in results.items() if not name.startswith("time/")}


def test_estimates_without_a_pass_are_the_same_after_a_stop(
    command, online, tmp_path, monkeypatch
):
    never, stopped = tmp_path / "never", tmp_path / "stopped"
    code, _, err = command("train", *online, f"--workdir={never}")
    assert code == 0, err
    phases = [json.loads(x)["phase"] for x in (never / "events.jsonl").read_text().splitlines()]
    assert phases.count("online_losses") == 2 and "loss_pass" not in phases
    assert "noise/auc" in results_of(never) and "noise/agreement_spearman" in results_of(never)

    with monkeypatch.context() as patch:  # between two estimates, which share most of their steps
        patch.setattr(loop.stop, "requested", lambda step=None: step == 9)
        code, _, err = command("train", *online, f"--workdir={stopped}")
    assert code == 75, err
    code, _, err = command("train", *online, f"--workdir={stopped}")
    assert code == 0, err
    assert columns_of(stopped) == columns_of(never) and len(columns_of(never)) == 4
    assert results_of(stopped) == results_of(never)

    done = json.loads((never / "columns" / "pair_loss" / "0002" / "DONE").read_text())
    order = Stream(draw=Epochs(Ranges(100)), batch_size=24, seed=0, rows=np.arange(24))
    seen = np.unique([order.block(step - 1).ids for step in range(3, 11)])
    assert done["meta"] == {
        **{"seen": len(seen), "kept": 100 - len(seen), "unknown": 0},
        **{"first": 3, "last": 10},
    }
    assert fragments(never / "online_losses")[-1].last == 10  # no estimate follows


@pytest.mark.parametrize(
    ("field", "words"),
    [
        ("nlip.online_window=0 steps", "online_window='0 steps' is 0 steps"),
        ("loss.duplicates=positives", "estimate='online'"),
        ("nlip.estimate=onlin", "choose one of pass, online"),
    ],
)
def test_what_cannot_be_is_refused(command, online, tmp_path, field, words):
    code, _, err = command("train", *online, f"--config.{field}", f"--workdir={tmp_path / 'w'}")
    assert code == 2 and words in err
