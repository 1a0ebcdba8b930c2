"""Rules for parameters: what lives where, what mirrors it, and every list that is refused."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec as P
from tiny import mesh_of

from configs import base
from nlip_jax.errors import UsageError
from nlip_jax.placement import Placement
from nlip_jax.sharding import replicated


def leaf(*shape: int) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(shape, np.float32)


# A tower of three stacked layers, of width 16 with 4 heads of 4.
TOWER = {
    "embedding": {"embedding": leaf(64, 16)},
    "blocks": {
        "attention": {
            "query": {"kernel": leaf(3, 16, 4, 4), "bias": leaf(3, 4, 4)},
            "out": {"kernel": leaf(3, 4, 4, 16), "bias": leaf(3, 16)},
        },
        "mlp": {
            "wide": {"kernel": leaf(3, 16, 64), "bias": leaf(3, 64)},
            "narrow": {"kernel": leaf(3, 64, 16), "bias": leaf(3, 16)},
        },
        "norm": {"scale": leaf(3, 16)},
    },
}
PARAMS = {"text": TOWER, "log_scale": leaf()}
RULES = tuple(base.get_config().mesh.rules)


def specs(placement: Placement, params) -> dict[str, P]:
    return {item.name: item.spec for item in placement.place(params)}


# --- fsdp -----------------------------------------------------------------------------------------


def test_the_longest_axis_that_divides_is_split():
    params = {
        "longest": leaf(8, 64),
        "last_of_equals": leaf(32, 32),
        "only_divisible": leaf(12, 63),
        "nothing_divisible": leaf(63, 31),
        "small": leaf(4, 4),
        "scalar": leaf(),
    }
    placement = Placement(mesh=mesh_of(8, fsdp=4), fsdp_min_bytes=1024)
    assert specs(placement, params) == {
        "longest": P(None, "fsdp"),
        "last_of_equals": P(None, "fsdp"),
        "only_divisible": P("fsdp"),
        "nothing_divisible": P(),
        "small": P(),
        "scalar": P(),
    }
    placed = {item.name: item for item in placement.place(params)}
    assert placed["longest"].nbytes == 4 * placed["longest"].device_bytes == 8 * 64 * 4
    reasons = {name: item.reason for name, item in placed.items()}
    assert reasons["longest"] == "" and "fsdp=4 divides" in reasons["nothing_divisible"]
    assert reasons["small"] == reasons["scalar"] == "below mesh.fsdp_min_bytes=1,024"


def test_the_smallest_array_that_is_split():
    params = {"w": leaf(16, 16)}
    for smallest, spec in ((1024, P(None, "fsdp")), (1025, P())):
        placement = Placement(mesh=mesh_of(8, fsdp=4), fsdp_min_bytes=smallest)
        assert specs(placement, params) == {"w": spec}


def test_data_parallel_runs_split_nothing():
    placed = Placement(mesh=mesh_of(8), rules=RULES, max_replicated=0.0).place(PARAMS)
    assert all(item.spec == P() and item.reason for item in placed)


def test_a_rule_may_keep_something_whole():
    rules = ("embedding -> replicate", ".* -> fsdp")
    placed = Placement(mesh=mesh_of(8, fsdp=4), rules=rules).place(PARAMS)
    (table,) = (item for item in placed if item.rule.text == rules[0])
    assert table.name == "text/embedding/embedding"
    assert table.spec == P() and table.reason == "by rule"


# --- tensor ---------------------------------------------------------------------------------------


def test_the_default_rules_split_heads_and_mlps():
    found = specs(Placement(mesh=mesh_of(8, tensor=4), rules=RULES), PARAMS)
    blocks = "text/blocks/"
    assert found == {
        "text/embedding/embedding": P(None, "tensor"),
        f"{blocks}attention/query/kernel": P(None, None, "tensor"),
        f"{blocks}attention/query/bias": P(None, "tensor"),
        f"{blocks}attention/out/kernel": P(None, "tensor"),
        f"{blocks}attention/out/bias": P(),
        f"{blocks}mlp/wide/kernel": P(None, None, "tensor"),
        f"{blocks}mlp/wide/bias": P(None, "tensor"),
        f"{blocks}mlp/narrow/kernel": P(None, "tensor"),
        f"{blocks}mlp/narrow/bias": P(),
        f"{blocks}norm/scale": P(),
        "log_scale": P(),
    }


def test_fsdp_takes_another_axis_than_tensor():
    placement = Placement(mesh=mesh_of(8, fsdp=2, tensor=2), rules=RULES, fsdp_min_bytes=1024)
    found = specs(placement, PARAMS)
    assert found["text/blocks/mlp/wide/kernel"] == P(None, "fsdp", "tensor")
    assert found["text/blocks/mlp/narrow/kernel"] == P(None, "tensor", "fsdp")
    assert found["text/blocks/attention/query/kernel"] == P(None, "fsdp", "tensor")
    assert found["text/blocks/mlp/wide/bias"] == P(None, "tensor")  # too small for fsdp
    by_name = {item.name: item for item in placement.place(PARAMS)}
    wide = by_name["text/blocks/mlp/wide/kernel"]
    assert wide.nbytes == 4 * wide.device_bytes


def test_without_tensor_its_rules_do_as_fsdp_does():
    mesh = mesh_of(8, fsdp=4)
    assert specs(Placement(mesh=mesh, rules=RULES), PARAMS) == specs(
        Placement(mesh=mesh, rules=(".* -> fsdp",)), PARAMS
    )


# --- the rest of the state ------------------------------------------------------------------------


def test_what_mirrors_a_parameter_lives_beside_it():
    mesh = mesh_of(8, fsdp=2, tensor=2)
    placement = Placement(mesh=mesh, rules=RULES)
    state = {
        "params": PARAMS,
        "opt_state": ({"mu": PARAMS, "nu": PARAMS, "count": leaf()}, None),
        "method_state": {"momentum": PARAMS, "queue": leaf(64, 16)},
        "factored": {"text": {"embedding": {"embedding": leaf(64)}}},
    }
    places = placement.shardings(state, params=PARAMS)
    assert jax.tree.structure(places) == jax.tree.structure(state)
    split = places["params"]
    assert split["text"]["embedding"]["embedding"].spec == P("fsdp", "tensor")
    moments, _ = places["opt_state"]
    assert moments["mu"] == moments["nu"] == split == places["method_state"]["momentum"]
    everywhere = replicated(mesh)
    assert moments["count"] == places["method_state"]["queue"] == everywhere
    assert places["factored"]["text"]["embedding"]["embedding"] == everywhere


def test_results_of_any_mesh_are_those_of_one_device():
    """The mesh is a matter of speed: a product over split parameters is the same product."""
    x = np.random.default_rng(0).normal(size=(16, 32)).astype(np.float32)
    w = np.random.default_rng(1).normal(size=(32, 64)).astype(np.float32)
    for axes in ({}, {"fsdp": 4}, {"fsdp": 8}, {"fsdp": 2, "tensor": 2}):
        placement = Placement(mesh=mesh_of(8, **axes), rules=("w -> tensor:-2",))
        places = placement.shardings({"w": leaf(32, 64)}, params={"w": leaf(32, 64)})
        product = jax.jit(jnp.matmul)(x, jax.device_put(w, places["w"]))
        np.testing.assert_allclose(product, x @ w, rtol=1e-5, atol=1e-5)


# --- what is refused ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("rules", "words"),
    [
        (("fsdp",), ["'fsdp'", "REGEX -> STRATEGY"]),
        (("-> fsdp",), ["'-> fsdp'", "REGEX -> STRATEGY"]),
        ((".* -> zero3",), ["zero3", "replicate, fsdp, tensor:AXIS"]),
        ((".* -> tensor",), ["'tensor'", "tensor:AXIS"]),
        ((".* -> tensor:1",), ["'tensor:1'", "from the end"]),
        (("att(ention -> fsdp", ".* -> fsdp"), ["'att(ention -> fsdp'", "regex"]),
        (("embedding -> tensor:-3", ".* -> fsdp"), ["text/embedding/embedding", "no axis -3"]),
        (("wide/bias -> tensor:-2", ".* -> fsdp"), ["wide/bias", "(3, 64)", "tensor=2"]),
        (("conv -> fsdp", ".* -> fsdp"), ["'conv -> fsdp'", "matches no parameter", "text/"]),
        ((".* -> fsdp", "mlp -> replicate"), ["'mlp -> replicate'", "no effect", "put it before"]),
        (
            ("query -> fsdp", "out -> fsdp", "attention -> replicate", ".* -> fsdp"),
            ["'attention -> replicate'", "no effect", "put it before"],
        ),
        (
            ("kernel -> fsdp", "mlp -> replicate", ".* -> fsdp"),
            ["'kernel -> fsdp' and 'mlp -> replicate'", "mlp/", "attention/", "narrower"],
        ),
        (("text/ -> fsdp",), ["no rule matches log_scale", "'.* -> fsdp'"]),
    ],
)
def test_rules_that_are_refused(rules, words):
    placement = Placement(mesh=mesh_of(8, fsdp=2, tensor=2), rules=rules)
    with pytest.raises(UsageError) as caught:
        placement.place(PARAMS)
    message = str(caught.value)
    assert message.startswith("config.mesh.rules: ") and "\n" not in message
    assert all(word in message for word in words), message


def test_overlaps_that_are_not_ambiguous():
    for rules in (
        ("mlp/wide -> replicate", "mlp -> fsdp", ".* -> replicate"),  # ever narrower exceptions
        ("kernel -> fsdp", "mlp -> fsdp", ".* -> replicate"),  # they do the same
        ("attention -> fsdp", "mlp -> replicate", ".* -> fsdp"),  # they do not meet
    ):
        Placement(mesh=mesh_of(8, fsdp=2), rules=rules).place(PARAMS)


def test_heads_that_do_not_divide():
    rules = ("query/kernel -> tensor:-2", ".* -> fsdp")
    params = {"query": {"kernel": leaf(48, 6, 8)}, "other": leaf(8)}
    with pytest.raises(UsageError, match=r"query/kernel.*\(48, 6, 8\).*config\.mesh\.tensor=4"):
        Placement(mesh=mesh_of(8, tensor=4), rules=rules).place(params)
    Placement(mesh=mesh_of(8, tensor=2), rules=rules).place(params)


def test_too_much_on_every_device():
    params = {"large": leaf(64, 60), "odd": leaf(3, 80), "whole": leaf(100), "small": leaf(20)}
    rules = ("whole -> replicate", ".* -> fsdp")  # 240 + 100 + 20 of 4,200

    def make(share: float, **axes) -> Placement:
        mesh = mesh_of(8, **axes)
        return Placement(mesh=mesh, rules=rules, fsdp_min_bytes=100, max_replicated=share)

    assert len(make(0.09, fsdp=8).place(params)) == 4
    (placed,) = (item for item in make(0.09, fsdp=8).place(params) if item.name == "odd")
    assert placed.spec == P(None, "fsdp")
    with pytest.raises(UsageError) as caught:
        make(0.02, fsdp=8).place(params)
    message = str(caught.value)
    assert "config.mesh.max_replicated=0.02: 2.9 %" in message and "\n" not in message
    assert "2.4 % by rule" in message and "0.5 % below mesh.fsdp_min_bytes=100" in message
    make(0.02).place(params)  # nothing is asked to be split
