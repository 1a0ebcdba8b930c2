"""One number over several sets, as papers report it."""

from collections import defaultdict
from collections.abc import Mapping

from nlip_jax.outcome import Outcome

AVERAGE = "average"  # in the place of a set; no set may be called so


def averages(outcomes: Mapping[str, Outcome]) -> dict[str, float]:
    """The unweighted mean over the sets of every kind that has two or more.

    Args:
      outcomes: by "KIND/SET"; those without a headline do not take part.

    Returns:
      "KIND/average/headline" -> mean of the headlines, which may be different metrics.
    """
    values = defaultdict(list)
    for name, outcome in outcomes.items():
        if outcome.headline:
            values[name.split("/", 1)[0]].append(outcome.metrics[outcome.headline])
    return {
        f"{kind}/{AVERAGE}/headline": sum(found) / len(found)
        for kind, found in values.items()
        if len(found) > 1
    }
