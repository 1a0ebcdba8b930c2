"""The table that ends a run in the terminal."""

from collections.abc import Mapping

from nlip_jax.report.formats import HEADINGS, group_results


def format_results(results: Mapping[str, float]) -> str:
    """Results as aligned plain text, grouped by the first component of their path.

    Args:
        results: metric by path, such as `{"noise/auc": 0.997, "retrieval/recall@1": 0.52}`.

    Returns:
        Lines without a final newline: each group's name, then its metrics, values right-aligned,
        behind them the interval between NAME_low and NAME_high where the results have these.
    """
    groups = group_results(results)
    rows = [row for members in groups.values() for row in members]
    names = max((len(row.name) for row in rows), default=0)
    values = max((len(row.text) for row in rows), default=0)
    lines = []
    for group, members in groups.items():
        lines.append(HEADINGS.get(group, group))
        for row in members:
            lines.append(f"  {row.name:<{names}}  {row.text:>{values}} {row.interval}".rstrip())
    return "\n".join(lines)
