"""The table of parameters at the start of a run."""

import jax
import numpy as np
from tiny import mesh_of

from nlip_jax.commands.placement_table import format_placement
from nlip_jax.placement import Placement

PARAMS = {
    "attention": {"kernel": (64, 4, 16), "bias": (4, 16)},
    "table": (50, 20),
    "odd": (7, 9),
    "scale": (4,),
}
SHAPES = jax.tree.map(
    lambda shape: jax.ShapeDtypeStruct(shape, np.float32),
    PARAMS,
    is_leaf=lambda x: isinstance(x, tuple),
)
RULES = ("attention -> tensor:-2", "table -> replicate", ".* -> fsdp")


def test_every_rule_and_what_stays_whole():
    mesh = mesh_of(8, fsdp=4, tensor=2)
    placement = Placement(mesh=mesh, rules=RULES, fsdp_min_bytes=200)
    text = format_placement(placement, SHAPES)
    assert text.splitlines() == [
        "parameters: 20.9 kB over fsdp=4 x tensor=2, 6.35 kB a device",
        "  rule                                             parameters    bytes   share  a device",
        "  attention -> tensor:-2                                    2  16.6 kB  79.6 %   2.08 kB",
        "  table -> replicate                                        1     4 kB  19.1 %      4 kB",
        "  .* -> fsdp                                                2    268 B   1.3 %     268 B",
        "  whole on every device                                     3  4.27 kB  20.4 %   4.27 kB",
        "    without an axis that mesh.fsdp=4 divides: odd           1    252 B   1.2 %     252 B",
        "    below mesh.fsdp_min_bytes=200: scale                    1     16 B   0.1 %      16 B",
        "    by rule: table                                          1     4 kB  19.1 %      4 kB",
    ]


def test_a_data_parallel_run_needs_no_table():
    text = format_placement(Placement(mesh=mesh_of(8), rules=RULES), SHAPES)
    assert text == "parameters: 20.9 kB, whole on every device (mesh.fsdp=1, tensor=1)"
