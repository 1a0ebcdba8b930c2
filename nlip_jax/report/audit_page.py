"""One self-contained HTML page that shows what an audit found in a data set.

It stands alone and runs nothing, as `page` says of its own.
"""

import os

from nlip_jax.files import write_atomically
from nlip_jax.report import plots
from nlip_jax.report.audit_records import AuditReport
from nlip_jax.report.formats import group_results
from nlip_jax.report.page import ENVIRONMENT


def render(report: AuditReport) -> str:
    """The page as HTML: the same report gives the same text."""
    return ENVIRONMENT.get_template("audit.html").render(
        report=report,
        groups=group_results(report.results),
        drawings=[
            plots.losses(report.noise, name="losses"),
            plots.noise_probs(report.noise, name="probs"),
        ],
    )


def write(path: str | os.PathLike, report: AuditReport) -> None:
    """Writes the page atomically.

    Args:
        path: where the page goes; its folder exists.
        report: what the page shows.
    """
    write_atomically(path, render(report).encode())
