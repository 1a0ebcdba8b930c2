"""What of a config changes how a step is made, beside its method and optimizer."""

from jax.sharding import Mesh
from ml_collections import ConfigDict

from nlip_jax.errors import UsageError
from nlip_jax.train.accumulation import MicroBatches


def make_micro_batches(config: ConfigDict, *, mesh: Mesh) -> MicroBatches | None:
    """The parts that a batch goes through the towers in; None where it goes through whole.

    Raises:
      UsageError: another kind of accumulation than the exact one, or parts that do not divide.
    """
    fields = config.accumulation
    if fields.kind == "plain":
        raise UsageError(
            "config.accumulation.kind='plain': a mean of the parts' contrastive losses, each with "
            "batch_size / micro_batches candidates instead of batch_size, is another loss; use "
            "kind='exact'"
        )
    if fields.kind != "exact":
        raise UsageError(f"config.accumulation.kind={fields.kind!r}: choose one of exact")
    micro_batches = MicroBatches(count=fields.micro_batches, mesh=mesh)
    rows = config.batch_size // micro_batches.num_devices  # of each; `make_mesh` checked that
    if rows % fields.micro_batches:
        raise UsageError(
            f"config.accumulation.micro_batches={fields.micro_batches} does not divide the {rows} "
            f"rows that each device has of config.batch_size={config.batch_size}; choose one of "
            f"{', '.join(str(n) for n in range(1, rows + 1) if rows % n == 0)}"
        )
    return micro_batches if fields.micro_batches > 1 else None
