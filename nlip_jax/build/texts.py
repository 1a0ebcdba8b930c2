"""What a method has to know of texts: their vocabulary, and that of concepts."""

import dataclasses

from nlip_jax.data.concepts.vocabulary import ConceptVocabulary
from nlip_jax.data.text.tokenizer import Tokenizer
from nlip_jax.methods.retriever import ImportedEncoder


@dataclasses.dataclass(frozen=True, kw_only=True)
class Texts:
    """The texts of a run.

    Attributes:
      tokenizer: of captions.
      concepts: words for what images show; None: none are used.
      encoder: that finds them; None: the model in training.
      encoder_tokenizer: of the prompted words; None: `tokenizer`.
    """

    tokenizer: Tokenizer
    concepts: ConceptVocabulary | None = None
    encoder: ImportedEncoder | None = None
    encoder_tokenizer: Tokenizer | None = None
