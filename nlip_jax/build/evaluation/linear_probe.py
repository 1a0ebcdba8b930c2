"""Linear probes of a config."""

from ml_collections import ConfigDict

from nlip_jax.build.evaluation.opening import Opening
from nlip_jax.build.evaluation.probing import (
    check_embeddings,
    of_field,
    open_train_and_test,
    take_fields,
)
from nlip_jax.build.names import lookup
from nlip_jax.evaluators.linear_probe import Lbfgs, LinearProbe, ProbeProtocol
from nlip_jax.evaluators.sgd_probe import Sgd

LBFGS = ("regularisation", "validation_share", "seed", "tolerance", "max_iterations")
_SGD = ("learning_rate", "momentum", "weight_decay", "batch_size", "epochs", "seed")

PROTOCOLS = {"lbfgs": (Lbfgs, LBFGS), "sgd": (Sgd, _SGD)}
_FIELDS = ("train", "test", "features", "protocol", *PROTOCOLS)


def make_linear_probe(spec: ConfigDict, opening: Opening) -> LinearProbe:
    """The evaluator of a training set and a test set."""
    take_fields(spec, _FIELDS, field=opening.field)
    check_embeddings(spec, opening)
    protocol = _make_protocol(spec, opening)
    sets = open_train_and_test(spec, opening)
    with of_field(opening):
        return LinearProbe(**sets, features=spec.features, protocol=protocol)


def _make_protocol(spec: ConfigDict, opening: Opening) -> ProbeProtocol:
    make, names = lookup(spec.protocol, PROTOCOLS, field=f"{opening.field}.protocol")
    block = spec[spec.protocol]
    return make(**take_fields(block, names, field=f"{opening.field}.{spec.protocol}"))
