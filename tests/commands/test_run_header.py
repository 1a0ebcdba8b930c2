"""The lines that tell what a run needs on each device."""

import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding, PartitionSpec
from tiny import LinearTowers, mesh_of

from nlip_jax.commands import run_header
from nlip_jax.train.speed import Yardstick
from nlip_jax.types import TrainState


def leaf(shape, *axes):
    place = NamedSharding(mesh_of(8, fsdp=4), PartitionSpec(*axes))
    return jax.ShapeDtypeStruct(shape, np.float32, sharding=place)


def state(**fields) -> TrainState:
    defaults = {"model_state": {}, "method_state": {}, "opt_state": {}, "params": {}}
    return TrainState(step=leaf(()), episode=leaf(()), **(defaults | fields))


def compiled_with(stats):
    return types.SimpleNamespace(memory_analysis=lambda: stats)


def test_bytes_are_those_of_one_device():
    tree = {"whole": leaf((100,)), "split": leaf((8, 50), "fsdp"), "both": leaf((50, 8), None)}
    assert run_header.bytes_per_device(tree) == 4 * (100 + 2 * 50 + 400)
    assert run_header.bytes_per_device(None) == 0


def test_memory_by_what_it_holds():
    params = {"w": leaf((1000, 1000), "fsdp")}
    made = state(params=params, opt_state={"mu": params, "nu": params})
    stats = types.SimpleNamespace(temp_size_in_bytes=1_230_000_000)
    assert run_header.memory_line(made, compiled_with(stats)) == (
        "on each device: parameters 1 MB, optimizer 2 MB, activations and gradients 1.23 GB"
    )
    line = run_header.memory_line(made, compiled_with(stats), loss_bytes=3_000_000)
    assert line.endswith("activations and gradients 1.23 GB, the loss, among these, about 3 MB")
    assert "gradients unknown" in run_header.memory_line(made, compiled_with(None))


def test_memory_of_a_real_step():
    compiled = jax.jit(lambda x: jnp.sin(x @ x)).lower(jnp.ones((64, 64))).compile()
    assert "activations" in run_header.memory_line(state(), compiled)


@pytest.mark.parametrize(
    ("tflops", "line"),
    [(989.0, "MFU is a share of 989 TFLOP/s on each cpu"), (None, "config.log.peak_tflops")],
)
def test_what_mfu_is_a_share_of(tflops, line):
    flops = {"image": 105 * 10**9, "text": 9 * 10**9, "loss": 10**8}
    yardstick = Yardstick(flops=flops, tflops=tflops, devices=8)
    work, peak = run_header.speed_lines(yardstick, model=None)
    assert work == (
        "each example: 114 GFLOP in training (image 105 GFLOP, text 9 GFLOP, loss 100 MFLOP)"
    )
    assert line in peak


def test_a_model_that_nobody_counted():
    yardstick = Yardstick(flops=None, tflops=989.0, devices=8)
    (line,) = run_header.speed_lines(yardstick, model=LinearTowers())
    assert line.startswith("no MFU") and "LinearTowers" in line


@pytest.mark.parametrize(
    ("count", "text"),
    [(0, "0 B"), (999, "999 B"), (12_345, "12.3 kB"), (4.5e9, "4.5 GB"), (2e15, "2e+03 TB")],
)
def test_large_numbers(count, text):
    assert run_header.with_unit(count, "B") == text
