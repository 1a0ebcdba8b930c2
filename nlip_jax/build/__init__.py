"""From a config to objects: the only place where names meet classes.

Every table lists the choices of one field. "package.module:name" in place of a method's name
reaches a user's own function with the signature of the functions in `METHODS`.
"""

from nlip_jax.build.bart import read_bart, starts_from_bart
from nlip_jax.build.captions import can_caption, given_columns
from nlip_jax.build.concepts import open_concepts, reopen_concepts
from nlip_jax.build.data import (
    data_fingerprint,
    make_draw,
    make_reading,
    make_transform,
)
from nlip_jax.build.durations import make_clock, make_learning_rate, make_plan, make_tx, may_grow
from nlip_jax.build.evaluation import evaluator_makers, make_evaluators, make_towers
from nlip_jax.build.mesh import make_mesh, make_placement
from nlip_jax.build.method import make_method
from nlip_jax.build.model import make_model
from nlip_jax.build.names import lookup
from nlip_jax.build.sources import indexed_sets, open_training_source
from nlip_jax.build.spikes import make_spike_policy
from nlip_jax.build.text import make_mask, open_tokenizer, reopen_tokenizer
from nlip_jax.build.training import make_micro_batches

__all__ = [
    "can_caption",
    "data_fingerprint",
    "evaluator_makers",
    "given_columns",
    "indexed_sets",
    "lookup",
    "make_clock",
    "make_draw",
    "make_evaluators",
    "make_learning_rate",
    "make_mask",
    "make_mesh",
    "make_method",
    "make_micro_batches",
    "make_model",
    "make_placement",
    "make_plan",
    "make_reading",
    "make_spike_policy",
    "make_towers",
    "make_transform",
    "make_tx",
    "may_grow",
    "open_concepts",
    "open_tokenizer",
    "open_training_source",
    "read_bart",
    "reopen_concepts",
    "reopen_tokenizer",
    "starts_from_bart",
]
