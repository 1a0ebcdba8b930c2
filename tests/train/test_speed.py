"""MFU: the peaks by kind of device, and the rate they would allow."""

import math

import jax
import jax.numpy as jnp
import pytest

from nlip_jax.losses.choice import LossShape, loss_flops
from nlip_jax.train.speed import PEAK_TFLOPS, Yardstick, peak_tflops, training_flops


@pytest.mark.parametrize(
    ("kind", "peak"),
    [
        ("TPU v4", 275),
        ("TPU v5 lite", 197),
        ("TPU v5", 459),
        ("TPU v5p", 459),
        ("TPU v6 lite", 918),
        ("NVIDIA H100 80GB HBM3", 989),
        ("NVIDIA H100 PCIe", 756),
        ("NVIDIA H100 NVL", 835.5),
        ("NVIDIA H200", 989),
        ("NVIDIA A100-SXM4-40GB", 312),
        ("NVIDIA A100 80GB PCIe", 312),
        ("NVIDIA L4", 121),
        ("NVIDIA L40S", 362),
        ("NVIDIA B200", 2250),
        ("Tesla V100-SXM2-16GB", 125),
    ],
)
def test_peak_by_the_names_that_devices_have(kind, peak):
    assert peak_tflops(kind) == peak


@pytest.mark.parametrize("kind", ["cpu", "NVIDIA H100 80GB HBM3 MIG 1g.10gb", "TPU v99", ""])
def test_unknown_kinds_have_no_peak(kind):
    assert peak_tflops(kind) is None


def test_no_pattern_hides_behind_an_earlier_one():
    """The first that fits counts: a more special pattern must stand before a more general one."""
    for kind, peak in PEAK_TFLOPS.items():
        assert peak_tflops(kind.removesuffix("*")) == peak


def test_the_peak_rate_is_that_of_all_devices():
    flops = {"image": 3 * 10**12, "text": 10**12}
    assert Yardstick(flops=flops, tflops=200.0, devices=8).peak_rate == 400.0
    assert Yardstick(flops=None, tflops=200.0, devices=8).peak_rate is None
    assert Yardstick(flops=flops, tflops=None, devices=8).peak_rate is None


@pytest.mark.parametrize(("image_tokens", "text_tokens"), [(1, 1), (5, 3)])
def test_training_takes_three_times_the_forward_pass(image_tokens, text_tokens):
    """The matmuls in the gradient of a loss, counted one by one."""
    b, d = 4, 6
    sides = jnp.zeros((b, image_tokens, d)), jnp.zeros((b, text_tokens, d))

    def loss(image, text):
        return jnp.einsum("ipd,jld->ijpl", image, text).sum()

    traced = jax.make_jaxpr(jax.value_and_grad(loss, (0, 1)))(*sides).jaxpr
    counted = 0
    for equation in traced.eqns:
        if equation.primitive.name == "dot_general":
            (contracted, _), _ = equation.params["dimension_numbers"]
            shape = equation.invars[0].aval.shape
            inner = math.prod(shape[i] for i in contracted)
            counted += 2 * math.prod(equation.outvars[0].aval.shape) * inner
    shape = LossShape(batch=b, dim=d, image_tokens=image_tokens, text_tokens=text_tokens)
    assert training_flops({"loss": loss_flops(shape)}) == {"loss": counted // b}
