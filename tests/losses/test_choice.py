"""Which implementation `auto` takes, at the limits that it states."""

import dataclasses

import pytest
import tiny

from nlip_jax.errors import UsageError
from nlip_jax.losses import choice
from nlip_jax.losses.choice import LossShape, choose, loss_flops, workspace_bytes
from nlip_jax.losses.engine import IMPLEMENTATIONS, Engine


def chosen(batch=4096, *, devices=1, dim=64, impl="auto", tile=0, platform="cpu", **shape):
    return choose(
        impl=impl,
        tile=tile,
        shape=LossShape(batch=batch, dim=dim, **shape),
        mesh=tiny.mesh_of(devices),
        platform=platform,
    )


@pytest.mark.parametrize("devices", [1, 8])
def test_auto_is_dense_up_to_a_tile_and_tiled_beyond(devices):
    assert chosen(1024, devices=devices).engine.impl == "dense"
    assert chosen(1025, devices=devices).engine.impl == "tiled"
    assert chosen(2048, devices=devices, platform="gpu").engine.impl == "dense"
    assert chosen(2049, devices=devices, platform="tpu").engine.impl == "tiled"
    assert chosen(17, devices=devices, tile=16).engine.impl == "tiled"


def test_auto_is_a_ring_where_columns_of_all_are_too_many():
    # Texts and two buffers of their gradients.
    limit = choice.GATHER_BYTES // (3 * 4 * 512)
    assert chosen(limit, dim=512, devices=8).engine.impl == "tiled"
    assert chosen(limit + 1, dim=512, devices=8).engine.impl == "ring"
    assert chosen(limit + 1, dim=512, devices=1).engine.impl == "tiled"  # nobody to send to


@pytest.mark.parametrize(
    ("batch", "reason"), [(512, "no larger than a tile"), (4096, "4,096 pairs are more than")]
)
def test_the_reason_is_told(batch, reason):
    found = chosen(batch)
    assert found.reason.startswith(found.engine.impl) and reason in found.reason
    assert found.bytes > 0


def test_a_ring_says_what_was_too_much():
    assert "gathered texts would take 403 MB a device" in chosen(65_536, dim=512, devices=8).reason


@pytest.mark.parametrize("impl", IMPLEMENTATIONS)
def test_what_the_config_says_is_done(impl):
    found = chosen(300, impl=impl, tile=100)
    assert found.engine == Engine(impl=impl, mesh=tiny.mesh_of(1), tile=100)
    assert "config.loss.impl" in found.reason
    assert ("100 x 100" in found.reason) == (impl in ("tiled", "ring"))


def test_a_tile_is_cut_to_the_batch():
    found = chosen(300, impl="tiled", tile=5000)
    assert found.engine.tile == 300 and "300 x 300" in found.reason


def test_tiles_of_tokens_are_smaller():
    """A power of two, of which all similarities of tokens are at most 2 ** 23."""
    for image_tokens, text_tokens in ((197, 77), (49, 16), (10**5, 10**5), (2, 1)):
        tokens = {"image_tokens": image_tokens, "text_tokens": text_tokens}
        tile = chosen(10**6, **tokens).engine.tile
        assert tile & (tile - 1) == 0
        assert tile == 1 or tile**2 * image_tokens * text_tokens <= 1 << 23
        assert tile == 1024 or (2 * tile) ** 2 * image_tokens * text_tokens > 1 << 23


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("impl", "chunked", r"config\.loss\.impl='chunked': choose one of auto, dense, rows, "),
        ("dtype", "float16", r"config\.loss\.dtype='float16': choose one of float32, bfloat16"),
        ("duplicates", "drop", r"config\.loss\.duplicates='drop': choose one of negatives, ignor"),
        ("tile", -1, r"config\.loss\.tile=-1"),
    ],
)
def test_wrong_names(field, value, message):
    fields = {"impl": "auto", "tile": 0, "dtype": "float32", "duplicates": "negatives"}
    with pytest.raises(UsageError, match=message):
        choose(
            **fields | {field: value},
            shape=LossShape(batch=8, dim=4),
            mesh=None,
            platform="cpu",
        )


@pytest.mark.parametrize("impl", IMPLEMENTATIONS)
@pytest.mark.parametrize("devices", [1, 8])
def test_more_takes_more_memory(impl, devices):
    engine = Engine(impl=impl, mesh=tiny.mesh_of(devices), tile=256)
    shape = LossShape(batch=512, dim=64, image_tokens=3, text_tokens=2)
    least = workspace_bytes(engine, shape)
    assert least > 0
    for name in ("batch", "dim", "image_tokens", "text_tokens"):
        larger = dataclasses.replace(shape, **{name: 2 * getattr(shape, name)})
        more = workspace_bytes(engine, larger)
        assert more > least or (more == least and name == "image_tokens"), name
        assert loss_flops(larger) == 2 * loss_flops(shape)
    assert chosen(512, impl=impl, tile=256, devices=devices).bytes > 0


def test_a_ring_takes_the_same_on_more_devices():
    own = 4096
    taken = [
        workspace_bytes(
            Engine(impl="ring", mesh=tiny.mesh_of(devices), tile=256),
            LossShape(batch=own * devices, dim=64),
        )
        for devices in (1, 2, 4, 8)
    ]
    assert len(set(taken)) == 1
