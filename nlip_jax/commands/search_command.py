"""`search`: images that are most similar to a text, an image, or both together."""

import sys

import numpy as np
from ml_collections import ConfigDict

from nlip_jax import __version__
from nlip_jax.build.objective import objective
from nlip_jax.commands import compilation_cache
from nlip_jax.commands.evaluation.restored_run import open_run
from nlip_jax.commands.json_file import write_json_file
from nlip_jax.commands.searching.answers import Answers, describe, to_json, to_report
from nlip_jax.commands.searching.kept_features import load_or_embed, make_folder
from nlip_jax.commands.searching.places import (
    config_searched,
    is_set,
    open_place,
    place_of_set,
)
from nlip_jax.commands.searching.query_image import open_query_image
from nlip_jax.commands.searching.request import Request, read_request
from nlip_jax.evaluators.query import check_arithmetic, find_images
from nlip_jax.methods.base import Features
from nlip_jax.methods.similarities import SIMILARITIES
from nlip_jax.train.state import fingerprint


def main(argv: list[str]) -> int:
    """Runs the command, in one process; returns the exit code."""
    request = read_request(argv)
    if request.has_both:
        check_arithmetic(SIMILARITIES[objective(request.config).similarity])
    asked = open_query_image(request) if request.image else None
    subject = open_run(
        _with_sets_searched(request), request.run, own=request.own, output=request.cache
    )
    sets = subject.evaluators
    place = place_of_set(*next(iter(sets.items()))) if sets else open_place(request)

    make_folder(request.cache)
    compilation_cache.use(request.config.compilation_cache, request.cache)
    towers = subject.towers(request.step)
    images, were_kept = load_or_embed(towers, place.source, folder=request.cache)
    unreadable = _count_unreadable(images)
    origin = "reused from" if were_kept else "now kept in"
    print(
        f"{place.source.num_images:,} images of {place.name}, {unreadable:,} of them unreadable; "
        f"their features are {origin} {request.cache}",
        file=sys.stderr,
    )
    found = find_images(
        towers,
        images,
        image=towers.embed_images(asked.source) if asked else None,
        text=towers.embed_texts([request.text]) if request.text else None,
        image_weight=request.image_weight,
        text_weight=request.text_weight,
        top=request.top,
    )
    answers = Answers(request=request, place=place, ids=found.best[0], scores=found.scores[0])
    print(describe(answers))
    if request.page is not None:
        from nlip_jax.report import search_page  # brings matplotlib

        provenance = {
            **subject.provenance,
            "step": str(request.step),
            "parameters": fingerprint(towers.variables),
            "searched": f"{place.name}, {place.source.fingerprint}",
            "nlip_jax": __version__,
        }
        search_page.write(
            request.page,
            to_report(answers, picture=asked.pixels if asked else None, provenance=provenance),
        )
        print(f"the page of this search is {request.page}")
    if request.json is not None:
        write_json_file(request.json, to_json(answers))
    return 0


def _with_sets_searched(request: Request) -> ConfigDict:
    """The config of the run with no evaluation set but the one that is searched, if one is."""
    config = request.config.copy_and_resolve_references()
    with config.unlocked():
        config.evaluators = ConfigDict()
        if is_set(request):
            kind, name = request.over.split("/", 1)
            spec = config_searched(request).evaluators[kind][name]
            config.evaluators = ConfigDict({kind: {name: spec}})
    return config


def _count_unreadable(images: Features) -> int:
    """Images without features."""
    values = next(v for v in images.values() if np.issubdtype(v.dtype, np.floating))
    return int(np.isnan(values).reshape(len(values), -1).any(1).sum())
