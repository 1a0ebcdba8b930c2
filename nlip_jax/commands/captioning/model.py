"""The captioning model of a run, restored."""

import dataclasses
import functools

import numpy as np
from jax.sharding import Mesh

from nlip_jax import build, sharding
from nlip_jax.commands.captioning.request import Request
from nlip_jax.commands.evaluation.restored_run import RunModel, open_model
from nlip_jax.data.images.transform import ImageTransform
from nlip_jax.data.text.tokenizer import PAD, Tokenizer
from nlip_jax.methods.nlip_whole import NlipWhole
from nlip_jax.train.state import fingerprint
from nlip_jax.types import PyTree


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class CaptionModel:
    """A model that makes captions, as it was at a step.

    Attributes:
      method: of its run; with as many concepts as were asked for.
      tokenizer: of the captions.
      transform: of the images, without augmentation.
      mesh: that it lies on.
      batch_size: global.
      variables: of the model.
    """

    method: NlipWhole
    tokenizer: Tokenizer
    transform: ImageTransform
    mesh: Mesh
    batch_size: int
    variables: PyTree

    @functools.cached_property
    def retrieval(self) -> PyTree:
        """What concepts are found by; None for a model that is given none."""
        if self.method.retriever is None:
            return None
        return self.method.retriever.prepare(self.method, self.variables)

    @functools.cached_property
    def exact(self) -> dict[str, str]:
        """Fingerprints of the parameters that captions depend on, by what they are for."""
        found = {"parameters": fingerprint(self.variables["params"])}
        if self.method.concepts is not None:
            found["concepts"] = self.method.concepts.fingerprint
            if self.method.retriever.encoder is not None:
                found["retriever"] = fingerprint(self.method.retriever.encoder.variables)
        return found

    def concepts_of(self, numbers: np.ndarray) -> list[str]:
        """Words of the concepts of an image: `[k]` numbers from 1, 0 for none."""
        return self.method.concepts.names((numbers.astype(np.int64) - 1).tolist())

    def text_of(self, row: np.ndarray) -> str:
        """The caption in a row of tokens; empty for a row of padding."""
        return self.tokenizer.decode(row) if (row != PAD).any() else ""


def open_captioning(request: Request) -> RunModel:
    """Builds the model; nothing is restored or compiled yet.

    Raises:
      UsageError: the config, or the folder of the run, is not to be used.
    """
    run = open_model(request.config, request.run)
    return dataclasses.replace(run, method=with_top_k(run.method, request.top_k))


def with_top_k(method: NlipWhole, top_k: int) -> NlipWhole:
    """The method with so many concepts of each image, at most as it has; 0: without any."""
    if method.retriever is None or not top_k:
        return dataclasses.replace(method, concepts=None, retriever=None)
    retriever = dataclasses.replace(method.retriever, top_k=top_k)
    return dataclasses.replace(method, retriever=retriever)


def restore(request: Request, run: RunModel) -> CaptionModel:
    """The model at the step that was asked for.

    Raises:
      RunError: the checkpoint cannot be read.
    """
    found = run.restore(request.step)
    rows = request.config.evaluation.rows_per_device
    return CaptionModel(
        method=run.method,
        tokenizer=run.tokenizer,
        transform=build.make_transform(request.config).without_augmentation(),
        mesh=run.mesh,
        batch_size=rows * sharding.num_row_shards(run.mesh),
        variables={"params": found["params"], **found["model_state"]},
    )
