"""What becomes of outcomes: intervals of shares stay shares."""

import numpy as np

from nlip_jax.commands.evaluation.results import Found
from nlip_jax.outcome import Outcome, Samples


def test_the_interval_of_a_share_stays_inside_of_what_shares_are():
    """Linearised, a mean over uneven classes may reach beyond 1; a distance may do so truly."""
    values = np.append(np.full(99, 1.0), -3.0) + 0.03
    samples = {name: Samples(values=values) for name in ("mean_per_class", "alignment")}
    metrics = {name: float(values.mean()) for name in samples}
    outcomes = {"zero_shot/a": Outcome(metrics=metrics, samples=samples)}
    found = Found(outcomes=outcomes, sets={}).with_intervals(draws=200, seed=0)
    assert found.intervals["zero_shot/a/alignment"][1] > 1
    assert found.intervals["zero_shot/a/mean_per_class"][1] == 1
    assert found.numbers["zero_shot/a/mean_per_class_high"] == 1
