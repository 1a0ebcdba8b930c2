"""The metrics of captions by name."""

from collections.abc import Callable
from dataclasses import dataclass

from nlip_jax.evaluators.captions.bleu import bleu
from nlip_jax.evaluators.captions.cider import cider
from nlip_jax.evaluators.captions.meteor import find_meteor, meteor
from nlip_jax.evaluators.captions.rouge import rouge_l
from nlip_jax.evaluators.captions.scored import Captioned, Scores
from nlip_jax.evaluators.captions.spice import find_spice, spice


@dataclass(frozen=True)
class Metric:
    """How a metric is computed.

    Attributes:
      score: captions -> what it says of them.
      check: raises UsageError where something that it needs is missing.
    """

    score: Callable[[Captioned], Scores]
    check: Callable[[], object] = lambda: None


METRICS = {
    "cider": Metric(cider),
    "bleu": Metric(bleu),
    "rouge_l": Metric(rouge_l),
    "meteor": Metric(meteor, check=find_meteor),
    "spice": Metric(spice, check=find_spice),
}
