"""`caption`: captions for all pairs of a data set, or for the pictures of a folder."""

import contextlib
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax

from nlip_jax import __version__
from nlip_jax.commands import compilation_cache
from nlip_jax.commands import session as sessions
from nlip_jax.commands import workdir as workdirs
from nlip_jax.commands.captioning import data_set, pictures
from nlip_jax.commands.captioning.model import CaptionModel, open_captioning, restore
from nlip_jax.commands.captioning.output import check_place
from nlip_jax.commands.captioning.request import Request, read_request
from nlip_jax.commands.captioning.table import write_table
from nlip_jax.commands.evaluation.restored_run import RunModel
from nlip_jax.commands.evaluation.results import write_results
from nlip_jax.commands.json_file import write_json_file
from nlip_jax.commands.searching.request import DATA
from nlip_jax.sharding import on_leader
from nlip_jax.train import stop


def main(argv: list[str]) -> int:
    """Runs the command; returns the exit code."""
    request = read_request(argv)
    sessions.start_processes()
    if request.over != DATA:
        return _of_folder(request)
    check_place(request.output)
    run = open_captioning(request)
    with contextlib.ExitStack() as stack:
        on_leader(
            lambda: stack.enter_context(workdirs.lock(request.output, flag="--output"))
        )
        return _of_data(request, run)


def _of_folder(request: Request) -> int:
    place = pictures.open_folder(request)
    run = open_captioning(request)
    compilation_cache.use(request.config.compilation_cache, request.output)
    model = restore(request, run)
    found = pictures.caption_pictures(request, model, place)
    if jax.process_index() != 0:
        return 0
    print(pictures.describe(found))
    if request.page is not None:
        from nlip_jax.commands.captioning.shown import of_folder

        made_by = _provenance(request, run, model, place.source.fingerprint)
        _write_page(request.page, of_folder(request, place, found, provenance=made_by))
    if request.json is not None:
        write_json_file(request.json, pictures.to_json(request, place, found))
    return 0


def _of_data(request: Request, run: RunModel) -> int:
    begun = time.monotonic()
    data = data_set.open_data(request, run.tokenizer)
    compilation_cache.use(request.config.compilation_cache, request.output)
    model = restore(request, run)
    output = data_set.open_output(request, model, data)
    stop.install_handlers(after="this batch")
    columns = data_set.caption_all(model, data, output)

    def write() -> None:
        if not workdirs.read_json(output.results) or not output.table.is_file():
            numbers = write_table(model, data, output, columns)
            seconds = time.monotonic() - begun
            write_results(output.results, numbers | {"last_part_seconds": seconds})

    on_leader(write)
    if jax.process_index() != 0:
        return 0
    numbers = workdirs.read_json(output.results)
    print(
        f"{numbers['captioned']:,} of {numbers['examples']:,} examples have a caption, of "
        f"{numbers['mean_tokens']:.1f} tokens in the mean; {numbers['distinct_share']:.1%} of the "
        "captions are distinct"
    )
    print(data_set.where_to_look(request, output))
    if request.page is not None:
        from nlip_jax.commands.captioning.shown import of_data

        made_by = _provenance(request, run, model, data.fingerprint)
        report = of_data(request, model, data, columns, provenance=made_by)
        _write_page(request.page, report)
    if request.json is not None:
        write_json_file(request.json, numbers)
    return 0


def _provenance(
    request: Request, run: RunModel, model: CaptionModel, data: str
) -> Mapping[str, str]:
    decoding = ", ".join(f"{name}={value}" for name, value in request.decoding.items())
    return {
        "run": str(request.run),
        "step": str(request.step),
        **model.exact,
        "trained on": str(run.data["fingerprint"]),
        "captioned": data,
        "decoding": decoding,
        "concepts of each": str(request.top_k),
        "seed": str(request.config.seed),
        "nlip_jax": __version__,
    }


def _write_page(path: Path, report: Any) -> None:
    from nlip_jax.report import caption_page  # brings matplotlib

    caption_page.write(path, report)
    print(f"the page of these captions is {path}")
