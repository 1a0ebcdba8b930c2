"""What becomes of evaluators' outcomes: numbers by name, intervals, files. `train` and `evaluate`
share it, so that a checkpoint has the same results whichever of them evaluated it."""

import dataclasses
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax

from nlip_jax.commands.evaluation.outcome_file import write_outcomes
from nlip_jax.evaluators.base import Evaluator, Towers
from nlip_jax.evaluators.intervals import intervals
from nlip_jax.evaluators.summary import averages
from nlip_jax.files import json_text, write_atomically
from nlip_jax.outcome import Outcome
from nlip_jax.report.evaluation_records import EvaluationReport
from nlip_jax.report.formats import is_share
from nlip_jax.train import stop

PAGE = "evaluation.html"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Found:
    """All that was found of one model at one step.

    Attributes:
      outcomes: by KIND/SET.
      sets: KIND/SET -> fingerprint of its examples.
      intervals: (low, high) by KIND/SET/METRIC; empty during training.
    """

    outcomes: Mapping[str, Outcome]
    sets: Mapping[str, str]
    intervals: Mapping[str, tuple[float, float]] = dataclasses.field(default_factory=dict)

    @property
    def numbers(self) -> dict[str, float]:
        """KIND/SET/METRIC and averages over sets, NAME_low and NAME_high beside NAME."""
        values = {
            f"{name}/{metric}": value
            for name, outcome in self.outcomes.items()
            for metric, value in outcome.metrics.items()
        }
        numbers = {}
        for name, value in (values | averages(self.outcomes)).items():
            numbers[name] = value
            if name in self.intervals:
                numbers[f"{name}_low"], numbers[f"{name}_high"] = self.intervals[name]
        return numbers

    def with_intervals(self, *, draws: int, seed: int) -> "Found":
        """With the intervals of all that is a mean."""
        found = intervals(self.outcomes, draws=draws, seed=seed)
        for name, (low, high) in found.items():
            # That of a mean of weighted values may reach beyond what a share can be.
            if is_share(name):
                found[name] = max(low, 0.0), min(high, 1.0)
        return dataclasses.replace(self, intervals=found)


def find(
    evaluators: Mapping[str, Evaluator],
    towers: Towers,
    *,
    sets: Mapping[str, str],
    check: Callable[[], None] = stop.check,
    say: Callable[[str], None] = lambda line: None,
) -> Found:
    """Runs all evaluators; on several processes all of them call it alike.

    Args:
      evaluators: by KIND/SET.
      towers: the model.
      sets: KIND/SET -> fingerprint of its examples.
      check: called before each set; raises where it is time to stop.
      say: is told the set that comes next.

    Raises:
      Preempted: asked to stop between two sets.
      RunError: the model gives numbers that are not finite.
    """
    outcomes = {}
    for name, evaluator in evaluators.items():
        check()
        say(name)
        outcomes[name] = evaluator.run(towers)
    return Found(outcomes=outcomes, sets=sets)


def write_found(
    folder: Path,
    found: Found,
    *,
    step: int,
    page: bool,
    title: str,
    description: str,
    provenance: Mapping[str, str],
) -> None:
    """Writes outcomes.npz and, where wanted, evaluation.html.

    Args:
      folder: where they go.
      found: with its intervals.
      step: that was evaluated.
      page: whether to write the page.
      title: of it.
      description: one line below that.
      provenance: what made the numbers.
    """
    write_outcomes(folder, found.outcomes, sets=found.sets, step=step)
    if not page:
        return
    from nlip_jax.report import evaluation_page  # brings matplotlib

    report = EvaluationReport(
        title=title,
        description=description,
        results=found.numbers,
        intervals=found.intervals,
        outcomes=found.outcomes,
        provenance=provenance,
    )
    evaluation_page.write(folder / PAGE, report)


def write_results(path: Path, results: Mapping[str, Any]) -> None:
    """Writes results.json."""
    write_atomically(path, (json_text(dict(results), indent=2) + "\n").encode())


def say(line: str) -> None:
    """A line for who waits, from the first process."""
    if jax.process_index() == 0:
        print(line, file=sys.stderr)
