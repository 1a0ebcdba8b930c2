"""Retrieval of a config."""

import logging

import numpy as np
from ml_collections import ConfigDict

from nlip_jax.build.evaluation.opening import Opening
from nlip_jax.build.languages import by_language
from nlip_jax.data.source import Source, image_ids
from nlip_jax.data.sources.indexed import IndexedSource
from nlip_jax.data.sources.planted import FirstImages
from nlip_jax.data.sources.prompted import Prompt
from nlip_jax.errors import UsageError
from nlip_jax.evaluators.retrieval import Captions, Retrieval

_LOG = logging.getLogger(__name__)
# Counts of an index, see `COUNTS`, that tell of images that take no part.
_WITHOUT = ("without_caption", "blank_caption", "unreadable_caption")


def make_retrieval(spec: ConfigDict, opening: Opening) -> Retrieval:
    """The evaluator of one captioned set."""
    languages = by_language(spec, field=opening.field)
    prompts = {
        way: Prompt(prefix=spec[way].prefix, suffix=spec[way].suffix)
        for way in ("image_to_text", "text_to_image")
    }
    if not languages:
        source = open_captioned(spec, opening)
        return Retrieval(source=source, examples=spec.examples, **prompts)
    sources = {
        language: open_captioned(one, opening.part(language)) for language, one in languages.items()
    }
    source = next(iter(sources.values()))
    return Retrieval(
        source=source,
        languages=_with_owners(sources, field=opening.field),
        examples=spec.examples,
        **prompts,
    )


def open_captioned(spec: ConfigDict, opening: Opening) -> Source:
    """Opens images with captions that are all of use.

    Raises:
      UsageError: it cannot be used, or some captions belong to no image.
    """
    source = opening.open_source(spec)
    inner = source.source if isinstance(source, FirstImages) else source
    counts = inner.index.counts if isinstance(inner, IndexedSource) else {}
    unknown = counts.get("without_image", 0)
    if unknown:
        raise UsageError(
            f"config.{opening.field}: {unknown} captions name an image that is not in the file (an "
            "unknown id, or a record without its file): mend it"
        )
    without = sum(counts.get(name, 0) for name in _WITHOUT)
    if without:
        _LOG.warning(
            "config.%s: %d images have no caption that can be read and take no part",
            *(opening.field, without),
        )
    return source


def _with_owners(sources: dict[str, Source], *, field: str) -> dict[str, Captions]:
    """Captions of every language, of images as the first language numbers them.

    Raises:
      UsageError: the languages have not the same images.
    """
    (first, images), *_ = sources.items()
    numbers = {key: image for image, key in enumerate(_keys(images))}
    found = {}
    for language, source in sources.items():
        keys = _keys(source)
        alone = set(keys).symmetric_difference(numbers)
        if alone or len(keys) != len(numbers):
            example = min(alone, default="")
            raise UsageError(
                f"config.{field}.languages: {language} has captions of {len(keys)} images, {first} "
                f"of {images.num_images}, and {len(alone)} are in one of them alone, such as "
                f"{example!r}: all languages need the same images"
            )
        place = np.array([numbers[key] for key in keys])
        owners = place[image_ids(source, np.arange(len(source)))]
        found[language] = Captions(source=source, owners=owners)
    return found


def _keys(source: Source) -> list[str]:
    return [source.place(image).key for image in range(source.num_images)]
