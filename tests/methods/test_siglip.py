"""SigLIP: CLIP with a sigmoid for each pair, and a bias (arXiv 2303.15343)."""

import numpy as np
import plain
import tiny
from tiny import mesh_of, rows


def test_the_loss_is_a_sum_over_all_pairs_for_each_image():
    """Written as big_vision has it: z = 2 I - 1, minus the sum of log sigmoid(z a), over b."""
    method, batch = tiny.siglip(), rows(range(10))
    params = plain.params_of(method)
    (output, pair_losses), gradient = plain.outputs_and_gradient(method, params, batch)
    logits, _ = plain.logits_of(method, params, batch)
    right = 2 * np.eye(10) - 1
    log_likelihood = -np.logaddexp(0, -right * logits)
    np.testing.assert_allclose(output.loss, -log_likelihood.sum() / 10, rtol=1e-5)
    mean = -(log_likelihood.sum(0) + log_likelihood.sum(1)) / 2
    np.testing.assert_allclose(pair_losses, mean, rtol=1e-5)
    # d/d bias: what is said too often yes, on average over the images.
    excess = 1 / (1 + np.exp(-logits)) - np.eye(10)
    np.testing.assert_allclose(gradient["logit_bias"], excess.sum() / 10, rtol=1e-4)
    assert set(output.metrics) == {"logit_scale", "logit_bias"}
    np.testing.assert_allclose(output.metrics["logit_bias"], -2.0)


def test_a_ring_of_devices_gives_the_same():
    batch = rows(range(10))
    params = plain.params_of(tiny.siglip())
    found = []
    for fields in ({}, {"impl": "ring", "mesh": mesh_of(8), "tile": 2}):
        method = tiny.siglip(choice=plain.choice(**fields))
        (output, _), gradient = plain.outputs_and_gradient(method, params, batch)
        found.append((output.loss, gradient))
    (loss, gradient), (ring_loss, ring_gradient) = found
    np.testing.assert_allclose(ring_loss, loss, rtol=1e-6)
    np.testing.assert_allclose(
        ring_gradient["image"]["kernel"], gradient["image"]["kernel"], rtol=1e-4, atol=1e-7
    )
    np.testing.assert_allclose(ring_gradient["logit_bias"], gradient["logit_bias"], rtol=1e-5)
