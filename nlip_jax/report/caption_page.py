"""One self-contained HTML page of pictures and the captions that a model made of them.

It stands alone and runs nothing, as `page` says of its own.
"""

import os

from nlip_jax.files import write_atomically
from nlip_jax.report.caption_records import CaptionReport
from nlip_jax.report.page import ENVIRONMENT


def render(report: CaptionReport) -> str:
    """The page as HTML: the same report gives the same text."""
    return ENVIRONMENT.get_template("caption.html").render(report=report)


def write(path: str | os.PathLike, report: CaptionReport) -> None:
    """Writes the page atomically.

    Args:
        path: where the page goes; its folder exists.
        report: what the page shows.
    """
    write_atomically(path, render(report).encode())
