"""The concept vocabulary of a config: mined from the captions of the run, or a file."""

import hashlib
import json
import logging
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from nlip_jax import phases
from nlip_jax.data.concepts import (
    ConceptVocabulary,
    RuleTagger,
    Tagger,
    make_vocabulary,
    mine,
    read_concepts,
    write_concepts,
)
from nlip_jax.data.source import Source
from nlip_jax.data.text.statistics import sample_captions
from nlip_jax.data.text.tokenizer import Tokenizer
from nlip_jax.errors import UsageError
from nlip_jax.files import write_atomically
from nlip_jax.sharding import on_leader

_LOG = logging.getLogger(__name__)

FILE = "concepts.txt"  # of a workdir

# What the mined words depend on, beside the captions.
_SETTINGS = ("tagger", "max_words", "min_count", "min_share", "max_size", "max_captions")


def _rules(model: str, *, max_words: int) -> Tagger:
    if model:
        raise UsageError(f"config.concepts.tagger='rules:{model}': it must be 'rules' alone")
    return RuleTagger(max_words=max_words)


def _spacy(model: str, *, max_words: int) -> Tagger:
    if not model:
        raise UsageError(
            "config.concepts.tagger='spacy' names no model: write 'spacy:MODEL', such as "
            "'spacy:en_core_web_sm'"
        )
    from nlip_jax.data.concepts.spacy_tagger import SpacyTagger  # noqa: PLC0415

    return SpacyTagger(model=model, max_words=max_words)


# What stands before the colon in config.concepts.tagger -> function of what stands behind it.
TAGGERS = {"rules": _rules, "spacy": _spacy}


def make_tagger(config: ConfigDict) -> Tagger:
    """What finds the concepts of captions.

    Raises:
      UsageError: there is no such tagger.
    """
    name, _, model = config.concepts.tagger.partition(":")
    if name not in TAGGERS:
        raise UsageError(
            f"config.concepts.tagger={config.concepts.tagger!r}: choose rules or spacy:MODEL"
        )
    return TAGGERS[name](model, max_words=config.concepts.max_words)


def open_concepts(
    config: ConfigDict, *, source: Source, tokenizer: Tokenizer, workdir: Path
) -> ConceptVocabulary | None:
    """The concepts of a run: WORKDIR/concepts.txt, mined once from its captions, or a file.

    All processes call it; the first one mines.

    Args:
      config: of the run.
      source: whose captions they are mined from.
      tokenizer: of the texts that concepts stand beside.
      workdir: of the run.

    Returns:
      The vocabulary; None where the config asks for no concepts.

    Raises:
      UsageError: the file or the mined words are not to be used, or a run began here with others.
    """
    spec = config.concepts
    if not spec.top_k:
        return None
    check_prompt(spec.prompt)
    if not spec.vocabulary:
        tagger = make_tagger(config)
        on_leader(lambda: _mine_once(spec, tagger=tagger, source=source, workdir=workdir))
    return _read(spec, spec.vocabulary or workdir / FILE, tokenizer)


def reopen_concepts(
    config: ConfigDict, *, tokenizer: Tokenizer, workdir: Path
) -> ConceptVocabulary | None:
    """The concepts of a run that has begun, without its captions.

    Args:
      config: of the run.
      tokenizer: likewise.
      workdir: of the run.

    Raises:
      UsageError: the file is gone or wrong.
    """
    spec = config.concepts
    if not spec.top_k:
        return None
    path = spec.vocabulary or workdir / FILE
    if not spec.vocabulary and not path.is_file():
        raise UsageError(f"{path}, this run's own concepts, is gone: bring it back")
    return _read(spec, path, tokenizer)


def check_prompt(prompt: str) -> None:
    """Refuses a prompt that does not say once where the concept stands.

    Raises:
      UsageError: it does not.
    """
    if prompt.count("{}") != 1:
        raise UsageError(
            f"config.concepts.prompt={prompt!r}: it must have {{}} once, in place of the concept, "
            "as in 'a photo of a {}.'"
        )


def _read(spec: ConfigDict, path: str | Path, tokenizer: Tokenizer) -> ConceptVocabulary:
    return make_vocabulary(read_concepts(path), tokenizer=tokenizer, max_tokens=spec.max_tokens)


def _read_marker(marker: Path) -> dict[str, Any]:
    try:
        return json.loads(marker.read_text())
    except (OSError, ValueError):  # not there or damaged: nothing is known of the words
        return {}


def _mine_once(spec: ConfigDict, *, tagger: Tagger, source: Source, workdir: Path) -> None:
    """Mines WORKDIR/concepts.txt, unless it is there and was made from the same.

    concepts.json beside it says what it was made from, and is written first: whatever a kill leaves
    behind is told apart from a file that someone put there.
    """
    path, marker = workdir / FILE, workdir / "concepts.json"
    settings = {name: spec[name] for name in _SETTINGS}
    if path.exists():
        made = _read_marker(marker)
        if made.get("fingerprint") != _fingerprint(read_concepts(path)):
            raise UsageError(
                f"{path} was not mined here: set config.concepts.vocabulary={path} to use it, or "
                "remove it to mine one"
            )
        # Shards that were appended since change no id, and the concepts still serve.
        known = {numbering.fingerprint for numbering in source.numberings}
        if made["captions"] in known and made["settings"] == settings:
            return
        if (workdir / "data.json").exists():
            raise UsageError(
                f"the captions or config.concepts changed since the run in {workdir} began, and "
                f"its {path.name} was made from the old ones; bring them back or choose another "
                "--workdir"
            )
        path.unlink()
    phases.enter("concepts_mining")
    _LOG.info("looking for concepts in at most %d captions", spec.max_captions)
    workdir.mkdir(parents=True, exist_ok=True)
    mined = mine(
        sample_captions(source, spec.max_captions),
        tagger=tagger,
        min_count=spec.min_count,
        min_share=spec.min_share,
        max_size=spec.max_size,
        folder=workdir / "concepts.parts",
    )
    words = [item.text for item in mined.concepts]
    made = {
        "fingerprint": _fingerprint(words),
        "captions": source.numberings[-1].fingerprint,
        "settings": settings,
        "num_captions": mined.num_captions,
        "counts": [item.count for item in mined.concepts],
    }
    write_atomically(marker, json.dumps(made).encode())
    write_concepts(path, words)
    phases.enter("concepts_mined", concepts=len(words), captions=mined.num_captions)


def _fingerprint(words: list[str] | tuple[str, ...]) -> str:
    return hashlib.sha256("\n".join(words).encode()).hexdigest()
