"""The texts of a run: vocabularies of captions and of concepts, and who finds the latter."""

from pathlib import Path

from jax.sharding import Mesh
from ml_collections import ConfigDict

from nlip_jax import build
from nlip_jax.build.texts import Texts
from nlip_jax.data.source import Source
from nlip_jax.data.text.tokenizer import Tokenizer


def open_texts(
    config: ConfigDict,
    *,
    source: Source | None,
    tokenizer: Tokenizer,
    workdir: Path,
    mesh: Mesh,
) -> Texts:
    """What the method of a config has to know of texts.

    Args:
      config: of the run.
      source: of its captions, from which concepts are mined; None: they were.
      tokenizer: of its captions.
      workdir: where its vocabularies are.
      mesh: of the run.
    """
    if not build.can_caption(config) or not config.concepts.top_k:
        return Texts(tokenizer=tokenizer)
    if source is None:
        concepts = build.reopen_concepts(config, tokenizer=tokenizer, workdir=workdir)
    else:
        concepts = build.open_concepts(
            config, source=source, tokenizer=tokenizer, workdir=workdir
        )
    texts = Texts(tokenizer=tokenizer, concepts=concepts)
    if config.concepts.retriever == "own":
        return texts
    from nlip_jax.commands.concept_encoder import with_encoder  # opens another model

    return with_encoder(texts, config, mesh=mesh)
