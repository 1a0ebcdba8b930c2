"""A data set of drawn scenes that needs no files: any number of captioned images, made on demand.

Everything follows from (seed, split, example_id), so reading at random, in order, or in another
process gives the same pictures and words. Web noise is planted in known examples.
"""

from nlip_jax.data.synthetic.sources import SPLITS, TEMPLATES, ClassScenes, SyntheticScenes

__all__ = ["SPLITS", "TEMPLATES", "ClassScenes", "SyntheticScenes"]
