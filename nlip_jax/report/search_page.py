"""One self-contained HTML page that shows what a search found.

It stands alone and runs nothing, as `page` says of its own.
"""

import os

from nlip_jax.files import write_atomically
from nlip_jax.report.evaluation_records import SearchReport
from nlip_jax.report.page import ENVIRONMENT


def render(report: SearchReport) -> str:
    """The page as HTML: the same report gives the same text."""
    names = [*report.names, *[""] * (len(report.query.answers) - len(report.names))]
    return ENVIRONMENT.get_template("search.html").render(
        report=report,
        asked=report.query.query,
        answers=list(zip(report.query.answers, names, strict=True)),
        has_texts=any(answer.text for answer in report.query.answers),
    )


def write(path: str | os.PathLike, report: SearchReport) -> None:
    """Writes the page atomically.

    Args:
        path: where the page goes; its folder exists.
        report: what the page shows.
    """
    write_atomically(path, render(report).encode())
