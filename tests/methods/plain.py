"""A method on a small batch, as the step takes it, and what its loss is made of."""

import jax
import numpy as np
from tiny import rows, state_of

from nlip_jax.losses.choice import Choice
from nlip_jax.losses.engine import Engine


def choice(**fields) -> Choice:
    return Choice(engine=Engine(**fields), reason="for the test", bytes=0)


def params_of(method):
    return method.init_model(jax.random.key(0), rows([0]))[0]


def outputs_and_gradient(method, params, batch):
    """(output of `pair_loss`, pair losses), gradient of the loss."""

    def compute(params, batch):
        state = state_of(method, params)

        def loss_of(params):
            features = method.embed(params, state, batch, rng=None).features
            output = method.pair_loss(params, features, state, batch)
            return output.loss, (output, method.pair_losses(params, state, batch))

        (_, outputs), gradient = jax.value_and_grad(loss_of, has_aux=True)(params)
        return outputs, gradient

    return jax.jit(compute)(params, batch)


def logits_of(method, params, batch):
    """[images, texts] both ways, in float64."""
    features = method.embed(params, state_of(method, params), batch, rng=None).features
    found = method.similarity.score(features, features)
    scalars = {name: np.float64(value) for name, value in method.scalars(params).items()}
    scale, bias = scalars["logit_scale"], scalars.get("logit_bias", 0.0)
    return tuple(scale * np.float64(s) + bias for s in (found.per_row, found.per_column))
