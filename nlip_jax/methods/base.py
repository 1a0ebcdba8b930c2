"""What a pretraining method is: pure functions, an explicit state, and one hook on the host.

The loop knows nothing of methods but this interface. The split of the loss in `embed` (each
example by itself), `pair_loss` (couples the global batch) and `example_loss` (each example again)
is what lets a trainer work in micro-batches and still see the global batch.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import flax.struct
import jax.numpy as jnp
import numpy as np

from nlip_jax.columns import ColumnVersion
from nlip_jax.losses.choice import Choice
from nlip_jax.models.dropout import example_keys
from nlip_jax.types import Array, Batch, LossOutput, PyTree, TrainState

Features = dict[str, Array]


@flax.struct.dataclass
class Embedded:
    """What `embed` makes of a batch.

    Attributes:
      features: `[b, ...]`; all of the global batch are held at once.
      model_state: after the batch: batch statistics and the like.
      local: `[b, ...]`, what only `example_loss` of the same examples looks at. In micro-batches
        those of one part are held at a time.
    """

    features: Features
    model_state: PyTree
    local: Features = flax.struct.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class Joined:
    """How a batch shows a column.

    Attributes:
      column: its name among the columns of the run.
      shape: of a row.
      dtype: of a row; 0 stands where nothing is known.
      rows: values of the column `[k, ...]` -> rows `[k, *shape]`; None: the values as they are.
    """

    column: str
    shape: tuple[int, ...] = ()
    dtype: type = np.float32
    rows: Callable[[np.ndarray], np.ndarray] | None = None


@dataclasses.dataclass(frozen=True)
class Episode:
    """What `refresh` may use of the run it works for; handed in, so that tests pass a fake.

    Attributes:
      index: of the episode that begins; columns written now have this version.
      map_examples: (column name, function, state) -> values of all examples `[n, ...]`. Applies
        `function(state, batch) -> [b, ...]` to every example once, in seeded random batches of
        real rows, without augmentation; finished work of a killed run is reused. The batch also
        has "example_id", `[b, 2]` uint32, and, given as `join=(name, ...)`, columns of this run.
      column: name -> the version of this episode, to read or to write.
      recent_losses: column name -> mean loss of each example over the method's `loss_window`, `[n]`
        float32, without a pass; an example that was not seen there keeps its last value. None where
        the method has no such window.
    """

    index: int
    map_examples: Callable[..., np.ndarray]
    column: Callable[[str], ColumnVersion]
    recent_losses: Callable[[str], np.ndarray] | None = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class Method:
    """A method with no state, no columns and no hooks; others replace what they need.

    All functions but `refresh` are pure and run inside the compiled step. Random numbers are drawn
    by example, from the step's `rng` and `batch["row"]`, never from the shape of a batch: the step
    may hand the examples to `embed` and `example_loss` in parts, and to `embed` twice.

    Attributes:
      model: a linen module that maps (image, tokens, random keys [b] or None) to features. Beside
        "params" it may have collections such as "batch_stats", which it updates when mutable.
      frozen_statistics: those collections stay as they are in training.
      choice: of the engine for its contrastive loss; None for a method without one.
      refresh_steps: steps at which an episode ends and `refresh` is called.
    """

    model: Any
    frozen_statistics: bool = False
    choice: Choice | None = None
    refresh_steps: tuple[int, ...] = ()

    @property
    def columns(self) -> tuple[str, ...]:
        """Names of what the pipeline joins to each batch from columns; 0 where not yet known."""
        return ()

    def joined(self, name: str) -> Joined:
        """Where one of `columns` comes from; a number an example in the column of its name."""
        return Joined(name)

    def version(self, column: str, episode: int) -> int:
        """The episode that made a column as it is known in a later one; 0: none has so far."""
        del column
        return episode

    def shows(self, column: str, episode: int) -> bool:
        """Whether training still shows a column that is known, in an episode."""
        del column, episode
        return True

    def loss_window(self, episode: int) -> range:
        """Steps whose metric "pair_loss", `[b]`, is kept for the refresh before an episode."""
        del episode
        return range(0)

    @property
    def inputs(self) -> tuple[str, ...]:
        """What a training batch holds beside "image" and "tokens".

        "image_view": the image augmented a second time, `[b, h, w, 3]`. "masked_tokens": the tokens
        with some of them masked, and with them "mask_labels", what those were, 0 elsewhere, both
        `[b, l]`. "image_id": number of the image in its data set, `[b]` int32.
        """
        return ()

    def init_model(self, rng: Array, batch: Batch) -> tuple[PyTree, PyTree]:
        """Fresh parameters and model state for batches of this shape."""
        variables = self.model.init(rng, scale_image(batch["image"]), batch["tokens"])
        return variables.pop("params"), variables

    def init_state(self, params: PyTree) -> PyTree:
        """What the method remembers on the devices, at step 0."""
        del params
        return {}

    def embed(
        self, params: PyTree, state: TrainState, batch: Batch, *, rng: Array | None
    ) -> Embedded:
        """Features of every example by itself.

        Args:
          params: that are differentiated.
          state: everything else.
          batch: the whole batch or a part of it, with "row" if there is a key.
          rng: key of the step; None outside training: no dropout, and statistics are only read.

        Returns:
          Features, `[b, ...]` all of them, and the model state after it.
        """
        keys = None if rng is None else example_keys(rng, batch["row"])
        updated = () if rng is None or self.frozen_statistics else tuple(state.model_state)
        features, changes = self.model.apply(
            {"params": params, **state.model_state},
            *(scale_image(batch["image"]), batch["tokens"], keys),
            mutable=updated,
        )
        return Embedded(features=features, model_state={**state.model_state, **changes})

    def pair_loss(
        self, params: PyTree, features: Features, state: TrainState, batch: Batch
    ) -> LossOutput:
        """The part of the loss that couples the global batch.

        Its `picks`, `[b, ...]` all of them, are constants to `example_loss`: what was chosen, not
        how.
        """
        raise TypeError(f"{type(self).__name__} defines no pair_loss")

    def pair_losses(self, params: PyTree, state: TrainState, batch: Batch) -> Array | None:
        """The loss of each pair among its batch, `[b]`; None where a method does not tell it."""
        del params, state, batch
        return None

    def example_loss(
        self,
        params: PyTree,
        features: Features,
        picks: PyTree,
        state: TrainState,
        batch: Batch,
        *,
        rng: Array,
    ) -> LossOutput | None:
        """Further terms of each example by itself; None where a method has none.

        The loss is the mean over the examples of the batch at hand, which may be a part of the
        global one: so is every metric.
        """
        del params, features, picks, state, batch, rng
        return None

    def update_state(self, state: TrainState, params: PyTree, carry: PyTree) -> PyTree:
        """The method's state after the update, inside the compiled step."""
        del params, carry
        return state.method_state

    def refresh(self, state: TrainState, episode: Episode) -> TrainState:
        """Work on the whole data set between two episodes, on the host."""
        del episode
        return state


def scale_image(image: Array) -> Array:
    """Pixels as the towers take them: uint8 [0, 255] -> float32 [-1, 1]."""
    return image.astype(jnp.float32) / 127.5 - 1.0
