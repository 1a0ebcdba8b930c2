"""One self-contained HTML page that shows the worst pairs of a repeated step."""

import os

from nlip_jax.files import write_atomically
from nlip_jax.report.formats import group_results
from nlip_jax.report.page import ENVIRONMENT
from nlip_jax.report.records import ReplayReport


def render(report: ReplayReport) -> str:
    """The page as HTML: the same report gives the same text."""
    template = ENVIRONMENT.get_template("replay.html")
    return template.render(report=report, groups=group_results(report.results))


def write(path: str | os.PathLike, report: ReplayReport) -> None:
    """Writes the page atomically.

    Args:
        path: where the page goes; its folder exists.
        report: what the page shows.
    """
    write_atomically(path, render(report).encode())
