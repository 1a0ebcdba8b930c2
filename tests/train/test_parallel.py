"""Data, fsdp and tensor parallel runs: the same numbers, less memory, and the traffic they need."""

import functools
import math
import re

import jax
import numpy as np
import optax
import pytest
import tiny
from tiny import LENGTH, SIZE, VOCAB, abstract_batch, mesh_of, rows

from configs import base
from nlip_jax import sharding
from nlip_jax.checkpoint import Checkpointer
from nlip_jax.models.dual_encoder import DualEncoder
from nlip_jax.models.text_transformer import TextTransformer
from nlip_jax.models.vit import VisionTransformer
from nlip_jax.placement import Placement
from nlip_jax.train.optimizer import make_optimizer
from nlip_jax.train.state import StateFactory
from nlip_jax.train.step import compile_step, train_step

BATCH = 40  # no parameter has an axis of this length, or of a device's share of it
RULES = tuple(base.get_config().mesh.rules)
RATE = optax.constant_schedule(0.03)
MESHES = {
    "data": {},
    "fsdp": {"fsdp": 4},
    "tensor": {"tensor": 2},
    "both": {"fsdp": 2, "tensor": 2},
}


def on_mesh(mesh, *, image: dict, text: dict, embed_dim: int) -> DualEncoder:
    """Towers of layers that are looped over, and stay with the rows of the batch."""
    shared = {"scan": True, "constrain": sharding.KeepByRow(mesh)}
    return DualEncoder(
        image=VisionTransformer(**image, **shared),
        text=TextTransformer(**text, **shared),
        embed_dim=embed_dim,
        constrain=shared["constrain"],
    )


def small_factory(mesh, *, tx: optax.GradientTransformation, **fields) -> StateFactory:
    shared = {"width": 16, "depth": 2, "heads": 2}
    model = on_mesh(
        mesh,
        image={"patch_size": 4, "image_size": SIZE, "pool": "mean", **shared},
        text={"vocab_size": VOCAB, "context_length": LENGTH, **shared},
        embed_dim=8,
    )
    return StateFactory(
        method=tiny.clip(model=model),
        tx=tx,
        placement=Placement(mesh=mesh, rules=RULES, fsdp_min_bytes=512),
        batch=abstract_batch(BATCH),
        seed=0,
        **fields,
    )


def compile_for(factory: StateFactory):
    step = functools.partial(
        train_step, method=factory.method, tx=factory.tx, schedule=RATE, seed=0
    )
    state, mesh = factory.abstract(), factory.placement.mesh
    return compile_step(step, state=state, batch=factory.batch, mesh=mesh)


@functools.cache
def compiled_on(mesh: str):
    # Without Adam, which makes steps of full size out of gradients that are zero but for rounding.
    factory = small_factory(mesh_of(8, **MESHES[mesh]), tx=optax.sgd(RATE, momentum=0.9))
    return factory, compile_for(factory)


# --- the same numbers -----------------------------------------------------------------------------


@functools.cache
def first_state():
    """Of all meshes: made on one, and moved to the others."""
    return jax.device_get(compiled_on("data")[0].create())


@functools.cache
def trained_on(mesh: str, *, steps: int = 20):
    """(losses, parameters after the last step)."""
    factory, step = compiled_on(mesh)
    places = jax.tree.map(lambda leaf: leaf.sharding, factory.abstract())
    state, losses = jax.device_put(first_state(), places), []
    for number in range(steps):
        batch = rows((np.arange(BATCH) + BATCH * number) % 200)
        state, metrics = step(state, sharding.to_devices(batch, factory.placement.mesh))
        losses.append(float(metrics["loss"]))
    return np.array(losses), jax.device_get(state.params)


@pytest.mark.parametrize("mesh", ["fsdp", "tensor", "both"])
def test_every_mesh_trains_the_same(mesh):
    losses, params = trained_on("data")
    assert losses[-1] < losses[0] - 0.1
    found, others = trained_on(mesh)
    np.testing.assert_allclose(found, losses, rtol=1e-5)
    # Of each value, or of 1 where it is smaller: some parameters are larger than that.
    close = functools.partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-5)
    jax.tree.map(close, others, params)


# --- the traffic ----------------------------------------------------------------------------------

COLLECTIVE = re.compile(
    r"= \(?(?P<shapes>.*?) (?P<kind>all-gather|all-reduce|reduce-scatter|all-to-all|"
    r"collective-permute)(-start)?\("
)


def collectives(mesh: str) -> list[tuple[bool, str, list[tuple[int, ...]]]]:
    """Whether it is in a loop over layers, its kind and the shapes of its results."""
    found, inside = [], False
    for line in compiled_on(mesh)[1].as_text().splitlines():
        if line and not line[0].isspace():
            inside = not line.startswith("ENTRY")
        elif match := COLLECTIVE.search(line):
            sizes = re.findall(r"\w\d+\[([\d,]*)\]", match["shapes"])
            shapes = [tuple(int(n) for n in text.split(",") if n) for text in sizes]
            found.append((inside, match["kind"], shapes))
    return found


def is_activation(shape: tuple[int, ...], rows_of_device: int) -> bool:
    """Whether an array has the rows of the batch, or of a device's part of it."""
    return bool(shape) and shape[0] in (BATCH, rows_of_device)


def test_fsdp_gathers_parameters_layer_by_layer_and_moves_no_activations():
    in_layers = [(kind, shapes) for inside, kind, shapes in collectives("fsdp") if inside]
    gathered = {shape for kind, shapes in in_layers if kind == "all-gather" for shape in shapes}
    assert {(16, 64), (64, 16), (16, 2, 8), (2, 8, 16)} <= gathered  # one layer of a stack of two
    assert not [s for _, shapes in in_layers for s in shapes if is_activation(s, BATCH // 8)]
    reduced = {s for kind, shapes in in_layers if kind != "all-gather" for s in shapes}
    assert {(16, 64), (64, 16), (16, 2, 8), (2, 8, 16)} <= reduced  # their gradients
    assert {kind for kind, _ in in_layers} <= {"all-gather", "all-reduce", "reduce-scatter"}


def test_tensor_parallel_layers_reduce_their_results_and_gather_nothing():
    """Two all-reduces a layer forward and two backward (Shoeybi et al., 2019, arXiv:1909.08053)."""
    in_layers = [(kind, shapes) for inside, kind, shapes in collectives("tensor") if inside]
    assert {kind for kind, _ in in_layers} == {"all-reduce"}
    activations = [
        shapes for _, shapes in in_layers if any(is_activation(s, BATCH // 4) for s in shapes)
    ]
    assert len(activations) == 2 * 4  # of each tower
    assert all(len(shape) == 3 for shapes in activations for shape in shapes)  # [b, l, width]


# --- where the state lives ------------------------------------------------------------------------


@pytest.mark.parametrize("optimizer", ["adamw", "lamb", "adafactor"])
def test_the_optimizer_is_split_as_its_parameters(optimizer):
    mesh = mesh_of(8, fsdp=2, tensor=2)
    tx = make_optimizer(name=optimizer, schedule=RATE, clip_norm=1.0)
    state = small_factory(mesh, tx=tx, ema=True).abstract()
    params = {
        jax.tree_util.keystr(path, simple=True, separator="/"): leaf
        for path, leaf in jax.tree_util.tree_leaves_with_path(state.params)
    }
    assert any(len(leaf.sharding.spec) for leaf in params.values())
    beside = dict.fromkeys(params, 0)
    for path, leaf in jax.tree_util.tree_leaves_with_path(state.opt_state):
        name = jax.tree_util.keystr(path, simple=True, separator="/")
        own = [other for other in params if name.endswith(f"/{other}")]
        if own and leaf.shape == params[own[0]].shape:
            assert leaf.sharding == params[own[0]].sharding, name
            beside[own[0]] += 1
        else:
            assert leaf.sharding == sharding.replicated(mesh), name
    assert set(beside.values()) == {2}  # both moments
    assert state.ema_params == state.params


def test_a_checkpoint_of_one_mesh_opens_on_another(tmp_path):
    tx = make_optimizer(name="adamw", schedule=RATE)
    saved = small_factory(mesh_of(8, fsdp=2), tx=tx, ema=True).create()
    saved = saved.replace(ema_params=jax.tree.map(lambda leaf: leaf / 2, saved.params))
    checkpointer = Checkpointer(tmp_path)
    checkpointer.save(3, state=saved, meta={})
    checkpointer.wait()
    wanted = small_factory(mesh_of(8, fsdp=4, tensor=2), tx=tx, ema=True).abstract()
    state = checkpointer.restore(3, abstract=wanted).state
    checkpointer.close()
    jax.tree.map(np.testing.assert_array_equal, jax.device_get(state), jax.device_get(saved))
    assert tiny.abstract(state) == wanted
    assert state.ema_params["text"]["encoder"]["blocks"]["mlp"]["wide"]["kernel"].sharding.spec


# --- memory ---------------------------------------------------------------------------------------


def vit_b16_on(mesh) -> StateFactory:
    """ViT-B/16 at 224 pixels and CLIP's text tower."""
    model = on_mesh(
        mesh,
        image={
            "patch_size": 16,
            "image_size": 224,
            "width": 768,
            "depth": 12,
            "heads": 12,
            "remat": "full",
        },
        text={
            "vocab_size": 32_000,
            "context_length": 64,
            "width": 512,
            "depth": 12,
            "heads": 8,
            "remat": "full",
        },
        embed_dim=512,
    )
    defaults = base.get_config().mesh
    return StateFactory(
        method=tiny.clip(model=model),
        tx=make_optimizer(name="adamw", schedule=RATE, clip_norm=1.0),
        placement=Placement(
            mesh=mesh,
            rules=RULES,
            fsdp_min_bytes=defaults.fsdp_min_bytes,
            max_replicated=defaults.max_replicated,
        ),
        batch={
            "image": jax.ShapeDtypeStruct((64, 224, 224, 3), np.uint8),
            "tokens": jax.ShapeDtypeStruct((64, 64), np.int32),
        },
        seed=0,
    )


def bytes_of(tree) -> tuple[int, int]:
    """(on each device, of the whole)."""
    leaves = jax.tree.leaves(tree)
    each = [math.prod(a.sharding.shard_shape(a.shape)) * a.dtype.itemsize for a in leaves]
    return sum(each), sum(math.prod(a.shape) * a.dtype.itemsize for a in leaves)


def test_vit_b16_split_over_eight_devices():
    """Parameters and moments take an eighth; nothing is allocated, only compiled."""
    factory = vit_b16_on(mesh_of(8, fsdp=8))
    state = factory.abstract()
    each, whole = bytes_of((state.params, state.opt_state))
    assert whole > 1.6e9
    assert each <= whole / 7
    stats = compile_for(factory).memory_analysis()  # arguments: these, and a batch
    assert stats.argument_size_in_bytes <= whole / 7
