"""Concepts of the audited data, and what finds them in images."""

import logging
from collections.abc import Iterator
from pathlib import Path

from ml_collections import ConfigDict

from nlip_jax.build.concepts import check_prompt, make_tagger
from nlip_jax.commands.auditing.model import Model
from nlip_jax.data.concepts import mine, read_concepts, write_concepts
from nlip_jax.data.listing import Listing
from nlip_jax.errors import UsageError
from nlip_jax.methods.retrieval import word_rows
from nlip_jax.methods.retriever import Retriever

FILE = "concepts.txt"
_CAPTIONS = 200_000  # that are looked through at most
_LOG = logging.getLogger(__name__)


def concept_words(config: ConfigDict, *, listing: Listing, folder: Path) -> tuple[str, ...]:
    """Words for what the images of a data set may show; () where there are none.

    Args:
      config: whose block `concepts` is read.
      listing: the captions, as far as they are known.
      folder: of the audit; mined words are kept there, and taken from there the next time.

    Raises:
      UsageError: a file of concepts or a tagger is not to be used.
    """
    spec, own = config.concepts, folder / FILE
    if not spec.top_k:
        return ()
    check_prompt(spec.prompt)
    if spec.vocabulary or own.exists():
        return read_concepts(spec.vocabulary or own)
    tagger = make_tagger(config)
    try:
        mined = mine(
            _captions(listing, min(spec.max_captions, _CAPTIONS)),
            tagger=tagger,
            min_count=spec.min_count,
            min_share=spec.min_share,
            max_size=spec.max_size,
            folder=folder / "concepts.parts",
        )
    except UsageError as error:  # captions that name nothing often: no reason to stop
        _LOG.warning("no concepts: %s", error)
        return ()
    words = tuple(item.text for item in mined.concepts)
    write_concepts(own, words)
    return words


def make_retriever(words: tuple[str, ...], config: ConfigDict, model: Model) -> Retriever | None:
    """What finds them in images with the model's own towers; None without any."""
    if not words:
        return None
    rows = word_rows(words, prompt=config.concepts.prompt, tokenizer=model.tokenizer)
    return Retriever(word_rows=rows, top_k=config.concepts.top_k)


def _captions(listing: Listing, most: int) -> Iterator[str]:
    """Captions evenly spaced over the list."""
    every = max(1, len(listing.ids()) // most)
    for table in listing.columns("caption"):
        yield from filter(None, table["caption"].to_pylist()[::every])
