"""Few-shot probes of a config."""

from ml_collections import ConfigDict

from nlip_jax.build.evaluation.opening import Opening
from nlip_jax.build.evaluation.probing import (
    check_embeddings,
    of_field,
    open_train_and_test,
    take_fields,
)
from nlip_jax.evaluators.few_shot import FewShot
from nlip_jax.evaluators.linear_probe import Lbfgs

_PROBE = ("regularisation", "tolerance", "max_iterations")
_FIELDS = ("features", "num_shots", "num_seeds", "seed", *_PROBE)


def make_few_shot(spec: ConfigDict, opening: Opening) -> FewShot:
    """The evaluator of a training set and a test set."""
    fields = take_fields(spec, _FIELDS)
    check_embeddings(spec, opening)
    fields |= open_train_and_test(spec, opening)
    probe = Lbfgs(**{name: fields.pop(name) for name in _PROBE})
    with of_field(opening):
        return FewShot(**fields, probe=probe)
