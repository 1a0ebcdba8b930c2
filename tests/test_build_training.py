"""Micro-batches of a config: how many there may be, and of which kind."""

import pytest
from tiny import mesh_of

from configs import base
from nlip_jax.build.training import make_micro_batches
from nlip_jax.errors import UsageError


def make(count, *, kind="exact", batch_size=48):
    config = base.get_config()
    config.batch_size = batch_size
    config.accumulation.micro_batches = count
    config.accumulation.kind = kind
    return make_micro_batches(config, mesh=mesh_of(8, fsdp=2, tensor=2))  # 4 share the batch


def test_parts_divide_the_rows_of_a_device():
    assert make(1) is None
    assert make(6).count == 6
    with pytest.raises(UsageError, match=r"=8 does not divide the 12 rows.*1, 2, 3, 4, 6, 12$"):
        make(8)


@pytest.mark.parametrize("count", [1, 4])
def test_means_of_contrastive_losses_are_refused(count):
    with pytest.raises(UsageError, match=r"kind='plain'.* is another loss; use kind='exact'"):
        make(count, kind="plain")
    with pytest.raises(UsageError, match=r"kind='sum': choose one of exact"):
        make(count, kind="sum")
