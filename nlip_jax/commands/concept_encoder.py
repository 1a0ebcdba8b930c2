"""A dual encoder of somebody else that finds the concepts of a run: `config.concepts.retriever`.

It is looked at in passes over the data alone: what it finds is kept as numbers of words, so no
gradient has a way to it, and it is no part of the state or of a checkpoint.
"""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jax.sharding import Mesh
from ml_collections import ConfigDict

from nlip_jax.build.texts import Texts
from nlip_jax.checkpoint import saved_steps
from nlip_jax.commands import workdir as workdirs
from nlip_jax.commands.evaluation.imported_model import load_model
from nlip_jax.commands.evaluation.restored_run import open_model
from nlip_jax.errors import UsageError
from nlip_jax.methods.retriever import ImportedEncoder
from nlip_jax.methods.similarities import SIMILARITIES

_FIELD = "concepts.retriever"


def with_encoder(texts: Texts, config: ConfigDict, *, mesh: Mesh) -> Texts:
    """The texts of a run whose concepts another model finds.

    Args:
      texts: of the run.
      config: of the run; concepts.retriever is the folder of a run, whose newest checkpoint is
        taken, or package.module:function, as of `evaluate --model`.
      mesh: of the run, onto which the other model is put.

    Raises:
      UsageError: there is no such model, or it takes other images than this run has.
    """
    name = config.concepts.retriever
    if Path(name).expanduser().is_dir():
        return _of_run(texts, Path(name).expanduser(), config, mesh)
    if ":" in name:
        return _of_function(texts, name, config, mesh)
    raise UsageError(
        f"config.{_FIELD}={name!r}: there is no such folder; choose own, which is the model in "
        "training, the folder of another run, or package.module:function"
    )


def _of_run(texts: Texts, run: Path, config: ConfigDict, mesh: Mesh) -> Texts:
    flag = f"config.{_FIELD}"
    own = workdirs.read_config(run, flag=flag)
    size = own.data.image_size
    if size != config.data.image_size:
        raise UsageError(
            f"{flag}={run} was trained with images of {size} pixels, and this run has "
            f"config.data.image_size={config.data.image_size}: it looks at the images of this run, "
            f"so set that to {size}, or take another model"
        )
    with own.unlocked():
        own.mesh = config.mesh  # its parameters lie as those of this run do
    steps = saved_steps(run / "checkpoints")
    if not steps:
        raise UsageError(f"{flag}={run}: {run / 'checkpoints'} holds no checkpoint yet")
    model = open_model(own, run, mesh=mesh, captions=False)
    found = model.restore(steps[-1])
    encoder = ImportedEncoder(
        variables={"params": found["params"], **found["model_state"]},
        image_features=model.method.image_features,
        text_features=model.method.text_features,
        similarity=model.method.similarity,
    )
    return dataclasses.replace(texts, encoder=encoder, encoder_tokenizer=model.tokenizer)


def _of_function(texts: Texts, name: str, config: ConfigDict, mesh: Mesh) -> Texts:
    fields = load_model(name, config, mesh, flag=f"--config.{_FIELD}")
    encoder = ImportedEncoder(
        variables=fields["variables"],
        image_features=fields["image_features"],
        text_features=fields["text_features"],
        similarity=SIMILARITIES[fields["similarity"]],
    )
    tokenizer = _Rows(fields["tokenizer"])
    return dataclasses.replace(texts, encoder=encoder, encoder_tokenizer=tokenizer)


@dataclasses.dataclass(frozen=True, eq=False)
class _Rows:
    """A tokenizer that encodes many texts, made from one that encodes one."""

    tokenizer: Any

    def encode_batch(self, texts: Sequence[str]) -> np.ndarray:
        """Texts as rows, `[n, l]` int32."""
        return np.stack([self.tokenizer.encode(text) for text in texts])
