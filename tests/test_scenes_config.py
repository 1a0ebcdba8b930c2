"""The arms of configs/scenes.py: alike but for what they are about."""

import json

import jax.numpy as jnp
import numpy as np
import pytest
import tiny

from configs import scenes
from nlip_jax import build
from nlip_jax.commands.ranges import check_numbers
from nlip_jax.commands.sweeping.plan import read_sweep
from nlip_jax.config import changed_fields, to_json
from nlip_jax.data.source import TRUTH
from nlip_jax.data.synthetic import SyntheticScenes
from nlip_jax.methods.align import Align


def config(arm: str, seed: int = 0):
    run = ",run=runs/a" if arm in scenes.SWEEP["uses"] else ""
    return scenes.get_config(f"arm={arm},seed={seed}{run}")


def fields(arm: str, seed: int = 0) -> dict:
    return json.loads(to_json(config(arm, seed)))


@pytest.mark.parametrize("arm", list(scenes.ARMS))
def test_an_arm_differs_from_clip_by_what_it_is_about(arm):
    check_numbers(config(arm))
    changes = changed_fields(fields("clip"), fields(arm))
    known = {name: value for name, value in scenes.ARMS[arm].items() if name in changes}
    changed = {name: new for name, (_, new) in changes.items()}
    captions = [name for name in changed if name.startswith("evaluators.caption")]
    assert bool([changed.pop(name) for name in captions]) == (arm in ("completion", "whole"))
    if arm == "again":
        known |= {
            "nlip.completion.captions": "runs/a",
            "tokenizer.model": "runs/a/tokenizer.model",
        }
    assert changed == known


def test_a_seed_is_one_of_everything():
    assert changed_fields(fields("clip"), fields("clip", 2)) == {
        "seed": (0, 2),
        "data.synthetic.seed": (0, 2),
    }


def test_the_sweep_names_the_arms():
    sweep = read_sweep("configs/scenes.py")
    assert list(sweep.arms) == list(scenes.ARMS)
    assert sweep.seeds == (0, 1, 2)


WRONG = ("arm=new", "arm=clip,seed=-1", "arm=clip,size=3", "clip", "arm=again", "arm=clip,run=a")


@pytest.mark.parametrize("arg", WRONG)
def test_other_arguments_are_refused(arg):
    with pytest.raises(ValueError, match=r"arm=clip\|"):
        scenes.get_config(arg)


def test_a_third_of_the_pairs_is_untouched():
    truth = SyntheticScenes(**scenes.get_config("arm=clip").data.synthetic).truth()
    assert np.mean(truth == TRUTH.index("clean")) == pytest.approx(0.36, abs=0.01)
    assert np.mean(truth == TRUTH.index("mismatched")) == pytest.approx(0.4, abs=0.01)
    clean = SyntheticScenes(**scenes.get_config("arm=ceiling").data.synthetic)
    assert not clean.truth().any()


def test_smoothing_is_clip_with_smoothed_targets_and_the_same_updates():
    """ALIGN's loss is the sum of both directions: twice the loss is twice the gradient, and the
    optimizer's own numbers make up for that, bit for bit."""
    c = scenes.get_config("arm=smoothing")
    method = tiny.clip(make=Align, label_smoothing=c.align.label_smoothing)
    rows = {name: jnp.asarray(value) for name, value in tiny.rows(range(6)).items()}
    params, _ = method.init_model(jnp.array([0, 1], jnp.uint32), rows)
    state = tiny.state_of(method, params)
    features = method.embed(params, state, rows, rng=None).features
    found = method.pair_loss(params, features, state, rows).loss
    scale = float(method.scalars(params)["logit_scale"])
    logits = scale * np.asarray(features["image_embed"] @ features["text_embed"].T, np.float64)
    target = 0.9 * np.eye(6) + 0.1 / 6
    log_p = logits - np.log(np.exp(logits).sum(1, keepdims=True))
    log_q = logits - np.log(np.exp(logits).sum(0, keepdims=True))
    clip = -(target * (log_p + log_q)).sum() / (2 * 6)  # CLIP takes the mean of both directions
    assert float(found) == pytest.approx(2 * clip, rel=1e-5)

    grads = {"kernel": jnp.array([3.0, -0.01, 1e-7]), "bias": jnp.array([0.5, 2.0, 1e-4])}
    params = {"kernel": jnp.ones(3), "bias": jnp.ones(3)}
    updates = []
    for arm, factor in (("clip", 1.0), ("smoothing", 2.0)):
        config = scenes.get_config(f"arm={arm}")
        clock = build.make_clock(config, num_examples=20_000)
        tx = build.make_tx(config, schedule=build.make_learning_rate(config, clock=clock))
        state = tx.init(params)
        for _ in range(2):
            given = {name: factor * value for name, value in grads.items()}
            update, state = tx.update(given, state, params)
        updates.append(update)
    for name in grads:
        np.testing.assert_array_equal(updates[0][name], updates[1][name])
