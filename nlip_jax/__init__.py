"""nlip_jax: pretraining language-image models on noisy web pairs, in JAX and Flax."""

__version__ = "0.1.0"
