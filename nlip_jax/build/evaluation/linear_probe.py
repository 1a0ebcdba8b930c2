"""Linear probes of a config."""

from ml_collections import ConfigDict

from nlip_jax.build.evaluation.opening import Opening
from nlip_jax.build.evaluation.probing import (
    check_embeddings,
    of_field,
    open_train_and_test,
)
from nlip_jax.build.names import lookup
from nlip_jax.evaluators.linear_probe import Lbfgs, LinearProbe, ProbeProtocol
from nlip_jax.evaluators.sgd_probe import Sgd

PROTOCOLS = {"lbfgs": Lbfgs, "sgd": Sgd}


def make_linear_probe(spec: ConfigDict, opening: Opening) -> LinearProbe:
    """The evaluator of a training set and a test set."""
    check_embeddings(spec, opening)
    protocol = _make_protocol(spec, opening)
    sets = open_train_and_test(spec, opening)
    with of_field(opening):
        return LinearProbe(**sets, features=spec.features, protocol=protocol)


def _make_protocol(spec: ConfigDict, opening: Opening) -> ProbeProtocol:
    make = lookup(spec.protocol, PROTOCOLS, field=f"{opening.field}.protocol")
    return make(**spec[spec.protocol])
