import jax
import numpy as np
import pytest


@pytest.fixture(scope="session")
def random_params():
    """Parameters off their starting point, without the time it takes to compile an init."""

    def make(model, *inputs):
        generator = np.random.default_rng(0)
        shapes = jax.eval_shape(model.init, jax.random.key(0), *inputs)

        def draw(path, leaf):
            center = float(path[-1].key == "scale")  # of layer norms
            return jax.numpy.asarray(generator.normal(center, 0.3, leaf.shape), leaf.dtype)

        return jax.tree_util.tree_map_with_path(draw, shapes)

    return make
