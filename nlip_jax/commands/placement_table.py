"""Where the parameters of a run live, as text for its start."""

import collections
from collections.abc import Iterable, Sequence

from nlip_jax.commands.run_header import with_unit
from nlip_jax.placement import Placed, Placement
from nlip_jax.types import PyTree


def format_placement(placement: Placement, params: PyTree) -> str:
    """What every rule does, and what is whole on every device and why; one line if nothing splits.

    Args:
      placement: the rules and the mesh.
      params: pytree of ShapeDtypeStructs.
    """
    placed, mesh = placement.place(params), placement.mesh
    total = sum(item.nbytes for item in placed)
    head = f"parameters: {with_unit(total, 'B')}"
    if mesh.shape["fsdp"] * mesh.shape["tensor"] == 1:
        return f"{head}, whole on every device (mesh.fsdp=1, tensor=1)"
    split = " x ".join(f"{axis}={mesh.shape[axis]}" for axis in ("fsdp", "tensor"))
    each = with_unit(sum(item.device_bytes for item in placed), "B")
    rows = [("rule", "parameters", "bytes", "share", "a device")]
    by_rule = _grouped((item.rule.text, item) for item in placed)
    rows += [(rule, *_numbers(by_rule[rule], total)) for rule in placement.rules]
    whole = [item for item in placed if item.reason]
    if whole:
        rows.append(("whole on every device", *_numbers(whole, total)))
    for reason, items in _grouped((item.reason, item) for item in whole).items():
        largest = max(items, key=lambda item: item.nbytes)
        more = " ..." * (len(items) > 1)
        rows.append((f"  {reason}: {largest.name}{more}", *_numbers(items, total)))
    return "\n".join([f"{head} over {split}, {each} a device", *_aligned(rows)])


def _grouped(pairs: Iterable[tuple[str, Placed]]) -> dict[str, list[Placed]]:
    groups = collections.defaultdict(list)
    for key, item in pairs:
        groups[key].append(item)
    return groups


def _numbers(items: Sequence[Placed], total: int) -> tuple[str, ...]:
    nbytes = sum(item.nbytes for item in items)
    device_bytes = sum(item.device_bytes for item in items)
    return (
        str(len(items)),
        with_unit(nbytes, "B"),
        f"{100 * nbytes / total:.1f} %",
        with_unit(device_bytes, "B"),
    )


def _aligned(rows: Sequence[tuple[str, ...]]) -> list[str]:
    """The first column to the left, numbers to the right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = []
    for first, *numbers in rows:
        cells = [f"{cell:>{width}}" for cell, width in zip(numbers, widths[1:], strict=True)]
        lines.append("  ".join([f"  {first:<{widths[0]}}", *cells]))
    return lines
