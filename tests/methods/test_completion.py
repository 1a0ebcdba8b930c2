"""Which text a pair shows: its own, or one that a model made."""

import dataclasses

import jax
import numpy as np
import plain
import pytest
import reference
import tiny
from plain import params_of
from tiny import mesh_of, rows, state_of

from nlip_jax.methods.completion import RULES, Completion, has_text
from nlip_jax.models.dropout import example_keys
from nlip_jax.train.accumulation import MicroBatches
from nlip_jax.train.gradients import loss_and_gradients

B = 8
KEY = jax.random.key(3)


def batch_of(*, noise_prob=None, captions: bool = True, size: int = B) -> dict:
    own, other = rows(range(size)), rows(range(100, 100 + size))
    synthetic = other["tokens"] if captions else np.zeros_like(own["tokens"])
    probability = np.linspace(0, 1, size) if noise_prob is None else noise_prob
    return own | {
        "noise_prob": np.broadcast_to(np.float32(probability), (size,)).copy(),
        "synthetic_tokens": synthetic,
        "row": np.arange(size, dtype=np.int32),
    }


def chosen(rule: str, batch: dict, **fields) -> np.ndarray:
    keys = example_keys(KEY, batch["row"])
    return np.asarray(Completion(rule=rule, **fields).choose(batch, keys))


def method_of(rule: str = "noise_prob", **fields):
    completion = Completion(rule=rule, **fields)
    return tiny.nlip(completion=completion, context_length=tiny.LENGTH)


def found(method, batch, params=None, **fields):
    params = params_of(method) if params is None else params
    state = state_of(method, params)
    work = jax.jit(
        lambda state, batch: loss_and_gradients(method, state, batch, rng=KEY, **fields)
    )
    return work(state, batch)


def close(ours, theirs, **tolerance):
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, **tolerance), ours, theirs)


# --- the choice -----------------------------------------------------------------------------------


@pytest.mark.parametrize("rule", RULES)
def test_a_clean_pair_shows_its_own_text(rule):
    assert not chosen(rule, batch_of(noise_prob=0.0)).any()


def test_by_noise_prob_a_pair_shows_the_synthetic_text_as_often_as_it_is_noise():
    many = batch_of(noise_prob=np.repeat([0.25, 0.75], 2000), size=4000)
    share = chosen("noise_prob", many).reshape(2, -1).mean(1)
    np.testing.assert_allclose(share, [0.25, 0.75], atol=0.03)
    assert chosen("noise_prob", batch_of(noise_prob=1.0)).all()


def test_another_step_draws_anew():
    batch = batch_of(noise_prob=0.5, size=64)
    rule = Completion(rule="noise_prob")
    drawn = [
        np.asarray(rule.choose(batch, example_keys(jax.random.key(step), batch["row"])))
        for step in range(2)
    ]
    assert (drawn[0] != drawn[1]).any()


def test_by_threshold():
    batch = batch_of()
    np.testing.assert_array_equal(
        chosen("threshold", batch, threshold=0.6), batch["noise_prob"] > 0.6
    )


@pytest.mark.parametrize("rule", RULES)
def test_without_a_caption_a_pair_shows_its_own_text(rule):
    assert not chosen(rule, batch_of(noise_prob=1.0, captions=False)).any()


def test_a_row_of_special_tokens_is_no_text():
    tokens = np.array([[2, 5, 3, 0], [2, 3, 0, 0], [0, 0, 0, 0]])
    np.testing.assert_array_equal(has_text(tokens), [True, False, False])


# --- the loss -------------------------------------------------------------------------------------


def test_synthetic_texts_are_trained_on_in_place_of_the_own_and_count_as_clean():
    batch, method = batch_of(noise_prob=1.0), method_of()
    params = params_of(method)
    ours = found(method, batch, params)
    plainly = {**batch, "tokens": batch["synthetic_tokens"], "noise_prob": np.zeros(B, np.float32)}
    expected = found(tiny.nlip(), plainly, params)
    np.testing.assert_allclose(ours.loss, expected.loss, rtol=1e-6)
    close(ours.gradients, expected.gradients, rtol=1e-5, atol=1e-7)
    assert ours.metrics["synthetic_share"] == 1.0


def test_own_texts_keep_their_softened_targets():
    batch = batch_of(noise_prob=0.9, captions=False)
    method = method_of()
    params = params_of(method)
    close(found(method, batch, params).gradients, found(tiny.nlip(), batch, params).gradients)


def test_a_mixed_batch_is_the_twin_of_the_texts_that_are_shown():
    batch, method = batch_of(), method_of("threshold", threshold=0.5)
    params = params_of(method)
    ours = found(method, batch, params)
    shown = np.where(batch["noise_prob"][:, None] > 0.5, batch["synthetic_tokens"], batch["tokens"])
    weight = np.where(batch["noise_prob"] > 0.5, 0.0, batch["noise_prob"])
    logits = plain.logits_of(tiny.nlip(), params, {**batch, "tokens": shown})
    expected = reference.pair_losses(
        *logits, "smoothed", weight, normaliser="softmax", valid=np.ones(B, bool)
    )
    np.testing.assert_allclose(ours.loss, expected.mean(), rtol=1e-5)


def test_a_union_is_the_mean_of_both_losses():
    batch, method = batch_of(noise_prob=0.4), method_of("union")
    params = params_of(method)
    ours = found(method, batch, params)
    own = found(tiny.nlip(), batch, params)
    clean = {**batch, "tokens": batch["synthetic_tokens"], "noise_prob": np.zeros(B, np.float32)}
    other = found(tiny.nlip(), clean, params)
    np.testing.assert_allclose(ours.loss, (own.loss + other.loss) / 2, rtol=1e-6)
    mean = jax.tree.map(lambda a, b: (a + b) / 2, own.gradients, other.gradients)
    close(ours.gradients, mean, rtol=1e-5, atol=1e-7)


def test_a_union_without_captions_is_the_own_loss():
    batch, method = batch_of(captions=False), method_of("union")
    params = params_of(method)
    ours, own = found(method, batch, params), found(tiny.nlip(), batch, params)
    np.testing.assert_allclose(ours.loss, own.loss, rtol=1e-6)
    assert ours.metrics["synthetic_share"] == 0.0


@pytest.mark.parametrize("rule", RULES)
def test_dropped_pairs_take_no_part(rule):
    """As if they were not in the batch: neither as pairs nor as candidates of others."""
    batch = batch_of(captions=False)
    method = method_of(rule, drop="noise_prob", drop_above=0.5)
    params = params_of(method)
    ours = found(method, batch, params)
    kept = {name: values[batch["noise_prob"] <= 0.5] for name, values in batch.items()}
    expected = found(tiny.nlip(), kept, params)
    np.testing.assert_allclose(ours.loss, expected.loss, rtol=1e-6)
    close(ours.gradients, expected.gradients, rtol=1e-5, atol=1e-7)
    assert ours.metrics["dropped_share"] == 0.5


def test_by_match_each_text_is_judged_by_its_own_probability():
    batch = batch_of(noise_prob=np.arange(B) % 2)
    own, synthetic = np.linspace(0, 1, B), np.linspace(1, 0, B)
    batch["match"] = np.stack([own, synthetic], 1).astype(np.float32)
    completion = Completion(rule="threshold", drop="match", drop_above=0.3)
    is_synthetic = np.arange(B) % 2 == 1
    kept = completion.kept(batch, is_synthetic)
    np.testing.assert_array_equal(kept, np.where(is_synthetic, synthetic, own) <= 0.3)


def test_all_dropped_is_no_loss_and_no_nan():
    method = method_of("none", drop="noise_prob", drop_above=0.5)
    ours = found(method, batch_of(noise_prob=1.0))
    assert ours.loss == 0.0
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(ours.gradients))


@pytest.mark.parametrize("rule", RULES)
def test_in_micro_batches_it_is_the_same(rule):
    batch = batch_of(size=16)
    method = method_of(rule)
    params = params_of(method)
    parts = MicroBatches(count=2, mesh=mesh_of(2))
    ours, whole = found(method, batch, params, micro_batches=parts), found(method, batch, params)
    np.testing.assert_allclose(ours.loss, whole.loss, rtol=1e-6)
    close(ours.gradients, whole.gradients, rtol=1e-5, atol=1e-7)


def test_passes_look_at_the_own_texts():
    batch = batch_of(noise_prob=1.0)
    method = method_of()
    params = params_of(method)
    ours = method.plain_pair_loss(state_of(method, params), batch)
    expected = tiny.nlip().plain_pair_loss(state_of(method, params), batch)
    np.testing.assert_array_equal(ours, expected)


# --- columns by episode ---------------------------------------------------------------------------


def test_a_column_is_known_from_the_refresh_on_that_makes_it():
    works = (("concepts", "estimate"), ("captions",), ("estimate",), ("captions", "match"))
    method = dataclasses.replace(method_of(), works=works)
    versions = {
        name: [method.version(name, episode) for episode in range(5)]
        for name in ("noise_prob", "pair_loss", "synthetic_caption", "concepts", "match")
    }
    assert versions == {
        "noise_prob": [0, 1, 1, 3, 3],
        "pair_loss": [0, 1, 1, 3, 3],
        "synthetic_caption": [0, 0, 2, 2, 4],
        "concepts": [0, 1, 1, 1, 1],
        "match": [0, 0, 0, 0, 4],
    }
