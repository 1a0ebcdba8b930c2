"""The state of a run, born sharded."""

import dataclasses
from collections.abc import Mapping

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax.traverse_util import flatten_dict, unflatten_dict

from nlip_jax import sharding
from nlip_jax.methods.base import Method
from nlip_jax.placement import Placement
from nlip_jax.train import spikes
from nlip_jax.types import Array, Batch, PyTree, TrainState


@dataclasses.dataclass(frozen=True)
class StateFactory:
    """Makes the state at step 0, and says what a state looks like without making one.

    Attributes:
      method: whose parameters and memory it holds.
      tx: the optimizer.
      placement: where it lives.
      batch: a batch of the run's shapes, abstract or real.
      seed: of the parameters.
      ema: whether a moving average of the parameters is kept.
      watches_loss: whether loss spikes are looked for.
    """

    method: Method
    tx: optax.GradientTransformation
    placement: Placement
    batch: Batch
    seed: int
    ema: bool = False
    watches_loss: bool = False

    def _create(self, given: Mapping[str, Array] | None = None) -> TrainState:
        rng = jax.random.key(self.seed)
        # Parameters depend on shapes only, never on the values or the size of a batch; but a model
        # on a mesh expects a row for each device.
        rows = {
            name: jnp.zeros((self.placement.mesh.size, *value.shape[1:]), value.dtype)
            for name, value in self.batch.items()
        }
        params, model_state = self.method.init_model(rng, rows)
        if given:
            params = unflatten_dict({**flatten_dict(params, sep="/"), **given}, sep="/")
        return TrainState(
            step=jnp.zeros((), jnp.int32),
            episode=jnp.zeros((), jnp.int32),
            params=params,
            model_state=model_state,
            opt_state=self.tx.init(params),
            method_state=self.method.init_state(params),
            ema_params=params if self.ema else None,
            loss_watch=spikes.new_watch() if self.watches_loss else None,
        )

    def abstract(self) -> PyTree:
        """ShapeDtypeStructs with shardings, for compiling and restoring."""
        shapes = jax.eval_shape(self._create)
        places = self.placement.shardings(shapes, params=shapes.params)
        return jax.tree.map(
            lambda leaf, place: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=place),
            shapes,
            places,
        )

    def create(self, given: Mapping[str, np.ndarray] | None = None) -> TrainState:
        """The state at step 0; no array of it ever exists unsharded.

        Args:
          given: name of a parameter, joined by "/" -> its value, instead of one that is drawn; the
            same on all processes.

        Raises:
          ValueError: there is no such parameter, or it has another shape or dtype.
        """
        abstract = self.abstract()
        leaves = flatten_dict(abstract.params, sep="/") if given else {}
        placed = {}
        for name, value in (given or {}).items():
            leaf = leaves.get(name)
            if leaf is None or (leaf.shape, leaf.dtype) != (value.shape, value.dtype):
                raise ValueError(f"{name}: {value.dtype}{value.shape} is given for {leaf}")
            placed[name] = sharding.from_all_hosts(value, leaf.sharding)
        places = jax.tree.map(lambda leaf: leaf.sharding, abstract)
        return jax.jit(self._create, out_shardings=places, donate_argnums=0)(placed)


@jax.jit
def _checksum(params: PyTree) -> Array:
    """Two 32-bit sums over the bits of all parameters; the same on every mesh."""
    sums = jnp.zeros((2,), jnp.uint32)
    for i, leaf in enumerate(jax.tree.leaves(params)):
        words = jax.lax.bitcast_convert_type(leaf.astype(jnp.float32), jnp.uint32).ravel()
        place = jax.lax.iota(jnp.uint32, words.size) + jnp.uint32(i * 7919)
        mixed = (words ^ (place * jnp.uint32(2654435761))) * jnp.uint32(2246822519)
        mixed = (mixed ^ (mixed >> 15)) * (place | jnp.uint32(1))
        sums += jnp.stack([jnp.sum(mixed), jnp.sum(mixed ^ (mixed >> 13))])
    return sums


def fingerprint(params: PyTree) -> str:
    """Hexadecimal fingerprint of the exact bits of parameters, whatever their sharding."""
    high, low = (int(word) for word in np.asarray(_checksum(params)))
    return f"{high:08x}{low:08x}"
