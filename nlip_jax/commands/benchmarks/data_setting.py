"""The data that all pipelines of a benchmark read, and the batches that all of them make."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nlip_jax.commands.benchmarks.data_shards import Shards, make_shards
from nlip_jax.data.formats.tar import TarFormat
from nlip_jax.data.index.update import update_index
from nlip_jax.data.storage import Storage
from nlip_jax.data.text.sentence_piece import train_sentence_piece

_CONTEXT, _VOCABULARY = 32, 200


@dataclass(frozen=True)
class Setting:
    """Made by `prepare`.

    Attributes:
      folder: where everything lies.
      shards: the images and captions.
      index: folder of the index of the shards.
      tokenizer: SentencePiece model, trained on the captions.
      size: of the crops, in pixels.
      batch_size: rows of a batch.
    """

    folder: Path
    shards: Shards
    index: str
    tokenizer: str
    size: int
    batch_size: int

    def arguments(self, *, scale: tuple[float, float], workers: int) -> dict[str, Any]:
        """What every pipeline is told.

        Args:
          scale: smallest and largest share of the area that a crop takes.
          workers: processes or threads.
        """
        return {
            "tokenizer": self.tokenizer,
            "context_length": _CONTEXT,
            "size": self.size,
            "scale": scale,
            "batch_size": self.batch_size,
            "workers": workers,
        }


def prepare(
    folder: Path,
    *,
    num_images: int = 4096,
    distinct: int = 200,
    width: int = 640,
    height: int = 480,
    size: int = 224,
    batch_size: int = 256,
) -> Setting:
    """Makes shards, their index and a tokenizer; see `make_shards`."""
    folder.mkdir()
    shards = make_shards(
        folder, num_images=num_images, num_shards=16, distinct=distinct, width=width, height=height
    )
    index, tokenizer = folder / "index", folder / "tokenizer.model"
    update_index(shards.paths, TarFormat(), index, storage=Storage(), workers=1)
    tokenizer.write_bytes(train_sentence_piece(shards.captions, vocab_size=_VOCABULARY))
    return Setting(
        folder=folder,
        shards=shards,
        index=str(index),
        tokenizer=str(tokenizer),
        size=size,
        batch_size=batch_size,
    )
