"""The model that an audit looks at pairs with."""

import dataclasses
from pathlib import Path
from typing import Any

import jax.numpy as jnp
from ml_collections import ConfigDict

from nlip_jax import build
from nlip_jax.checkpoint import saved_steps
from nlip_jax.commands.evaluation.restored_run import RunModel, open_model
from nlip_jax.data.images.transform import ImageTransform
from nlip_jax.data.loading import LoadPair
from nlip_jax.data.source import Source
from nlip_jax.data.text.tokenizer import Tokenizer
from nlip_jax.errors import UsageError
from nlip_jax.methods.clip import Clip
from nlip_jax.sharding import num_row_shards
from nlip_jax.train.map_examples import Mapper
from nlip_jax.train.state import fingerprint
from nlip_jax.types import PyTree, TrainState

# Looked at together, on any number of devices: among few others a loss says little, and among
# another number it is another one.
_PAIRS = 256


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Model:
    """A trained model, restored.

    Attributes:
      run: how it was opened.
      config: of its training.
      step: of the checkpoint.
      variables: of the model.
      mapper: runs functions over examples.
    """

    run: RunModel
    config: ConfigDict
    step: int
    variables: PyTree
    mapper: Mapper

    @property
    def method(self) -> Clip:
        """Of its training."""
        return self.run.method

    @property
    def tokenizer(self) -> Tokenizer:
        """Of its texts."""
        return self.run.tokenizer

    @property
    def transform(self) -> ImageTransform:
        """Of its images, without augmentation."""
        return build.make_transform(self.config).without_augmentation()

    @property
    def batch_size(self) -> int:
        """Pairs that are looked at together."""
        shards = num_row_shards(self.run.mesh)
        return -(-_PAIRS // shards) * shards

    @property
    def can_caption(self) -> bool:
        """Whether it makes captions."""
        return build.can_caption(self.config)

    @property
    def exact(self) -> str:
        """Of the parameters, hexadecimal."""
        return fingerprint(self.variables["params"])

    @property
    def state(self) -> TrainState:
        """The parameters, as functions of a method take them; there is no training behind it."""
        model_state = {name: part for name, part in self.variables.items() if name != "params"}
        return TrainState(
            step=jnp.int32(0),
            episode=jnp.int32(0),
            params=self.variables["params"],
            model_state=model_state,
            opt_state=(),
            method_state=(),
        )

    def load(self, source: Source) -> LoadPair:
        """Makes rows of a data set as the model takes them."""
        return LoadPair(
            source=source,
            tokenizer=self.tokenizer,
            transform=self.transform,
            numbers_images="image_id" in self.method.inputs,
        )


def check_run(config: ConfigDict, run: Path) -> RunModel:
    """Builds the model of a run; nothing is restored or compiled yet.

    Raises:
      UsageError: the folder of the run is not to be used, or its method tells no loss of a pair.
    """
    found = open_model(config, run)
    if not isinstance(found.method, Clip):
        raise UsageError(
            f"--run={run}: its method {config.method} contrasts no images with texts, so pairs "
            "have no loss to judge them by; name a run of another method"
        )
    return found


def restore(run: RunModel, config: ConfigDict, *, step: int | None, data: ConfigDict) -> Model:
    """The model at a step.

    Args:
      run: of `check_run`.
      config: of its training.
      step: of the checkpoint; None: the newest.
      data: the config whose data are audited, which says how they are read.

    Raises:
      RunError: the checkpoint cannot be read.
    """
    steps = saved_steps(run.checkpoints)
    if not steps:
        raise UsageError(f"{run.checkpoints} holds no checkpoint yet")
    chosen = steps[-1] if step is None else step
    found: dict[str, Any] = run.restore(chosen)
    return Model(
        run=run,
        config=config,
        step=chosen,
        variables={"params": found["params"], **found["model_state"]},
        mapper=Mapper(mesh=run.mesh, reading=build.make_reading(data)),
    )
