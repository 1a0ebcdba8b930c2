"""ALIGN: smoothed labels, and the sum of both directions (arXiv 2102.05918)."""

import numpy as np
import plain
import reference
import tiny
from tiny import rows

from nlip_jax.methods.align import Align


def losses_of(**fields):
    method, batch = tiny.clip(make=Align, **fields), rows(range(9))
    params = plain.params_of(method)
    (output, pair_losses), gradient = plain.outputs_and_gradient(method, params, batch)
    return output, pair_losses, gradient, plain.logits_of(method, params, batch)[0]


def test_the_loss_is_the_sum_of_two_smoothed_softmaxes():
    """As TensorFlow smooths: 0.9 for the own and 0.1 / b for each, the own among them."""
    output, pair_losses, _, logits = losses_of()
    target = 0.9 * np.eye(9) + 0.1 / 9
    expected = np.zeros(9)
    for both in (logits, logits.T):
        expected -= [t @ reference.log_softmax(row) for t, row in zip(target, both, strict=True)]
    np.testing.assert_allclose(pair_losses, expected, rtol=1e-5)
    np.testing.assert_allclose(output.loss, expected.mean(), rtol=1e-5)
    assert set(output.metrics) == {"logit_scale"}


def test_without_smoothing_it_is_twice_clip():
    output, pair_losses, gradient, _ = losses_of(label_smoothing=0.0)
    params = plain.params_of(tiny.clip())
    (clip, clip_pairs), clip_gradient = plain.outputs_and_gradient(
        tiny.clip(), params, rows(range(9))
    )
    np.testing.assert_allclose(output.loss, 2 * clip.loss, rtol=1e-6)
    np.testing.assert_allclose(pair_losses, 2 * clip_pairs, rtol=1e-6)
    np.testing.assert_allclose(gradient["log_scale"], 2 * clip_gradient["log_scale"], rtol=1e-5)
