"""The folder an evaluation writes into: whose it is, which steps are in it already.

    config.json       the config, evaluators and all
    evaluation.json   what was evaluated on what: identity of the training, fingerprints of the sets
    metrics.jsonl     a line for each step; a step that has one is done
    results.json, outcomes.npz, evaluation.html   of the newest step
    tensorboard/      all steps
"""

import json
import math
from collections.abc import Iterable, Mapping
from pathlib import Path

from ml_collections import ConfigDict

from nlip_jax import __version__
from nlip_jax import config as configs
from nlip_jax.commands import workdir as workdirs
from nlip_jax.commands.evaluation.results import PAGE, Found, write_found, write_results
from nlip_jax.commands.evaluation.subject import Subject
from nlip_jax.errors import UsageError
from nlip_jax.files import json_text, write_atomically
from nlip_jax.train.metrics import read_metrics

_MARK = "evaluation.json"
_NOT_OURS = ("data.json", "checkpoints", "columns")  # of runs
_MADE_BEFORE = {"index", "compilation_cache", ".lock"}
_EVAL = "eval/"  # before names in metrics.jsonl
_SHOWN = 3  # names of sets, in messages
_FIELDS = ("evaluators.", "evaluation.bootstrap", "ema.evaluate")  # that decide the results


class Output:
    """The folder of one subject and one choice of evaluators; only the first process writes.

    Args:
      folder: exists and is locked.
      config: of the subject, with the evaluators.
      subject: what is evaluated.
      sets: KIND/SET -> fingerprint of its examples.
    """

    def __init__(
        self, folder: Path, *, config: ConfigDict, subject: Subject, sets: Mapping[str, str]
    ):
        self.folder, self._config, self._subject, self._sets = folder, config, subject, dict(sets)

    def open(self) -> None:
        """Begins, or goes on.

        Raises:
          UsageError: another evaluation, or something else, lies there.
        """
        self._remove_leftovers()
        if self.done:  # else nothing was computed yet that this one could contradict
            self._check(workdirs.read_json(self.folder / _MARK))
        mark = {"subject": self._subject.identity, "sets": self._sets}
        write_atomically(self.folder / _MARK, (json.dumps(mark, indent=2) + "\n").encode())
        write_atomically(self.folder / "config.json", configs.to_json(self._config).encode())

    def _remove_leftovers(self) -> None:
        """Removes what a killed evaluation was about to write; the lock says that it is gone."""
        for path in self.folder.glob("*.tmp"):
            path.unlink(missing_ok=True)

    def _check(self, mark: dict) -> None:
        other = "choose another --output, or remove this one to evaluate anew"
        if mark["subject"] != self._subject.identity:
            raise UsageError(f"{self.folder} holds the evaluation of another model: {other}")
        if mark["sets"].keys() != self._sets.keys():
            raise UsageError(
                f"{self.folder} holds an evaluation on {_some(mark['sets'])}, asked for is one on "
                f"{_some(self._sets)}: {other}"
            )
        before = workdirs.read_json(self.folder / "config.json")
        now = json.loads(configs.to_json(self._config))
        for name, (old, new) in configs.changed_fields(before, now).items():
            if name.startswith(_FIELDS) or f"{name}." in _FIELDS:
                raise UsageError(
                    f"{self.folder} was made with config.{name}={old!r}, now it is {new!r}: {other}"
                )
        for name, examples in mark["sets"].items():
            if self._sets.get(name) != examples:
                raise UsageError(
                    f"{self.folder}: the examples of {name} have changed since: {other}"
                )

    @property
    def done(self) -> list[int]:
        """Steps that were evaluated, ascending."""
        return sorted(int(line["step"]) for line in read_metrics(self.folder / "metrics.jsonl"))

    def results(self, step: int | None = None) -> dict[str, float]:
        """Of a step, or of the newest one; empty where there is none.

        Args:
          step: that was evaluated. Only the newest one has intervals.
        """
        newest = workdirs.read_json(self.folder / "results.json")
        if step in (None, newest.get("step")):
            return newest
        for line in read_metrics(self.folder / "metrics.jsonl"):
            if line["step"] == step:
                values = {n.removeprefix(_EVAL): v for n, v in line.items() if n.startswith(_EVAL)}
                return values | {"step": step}
        return {}

    def write(self, step: int, found: Found, *, seconds: float) -> None:
        """Adds a step; the line that says it is done comes last.

        Args:
          step: that was evaluated.
          found: at it.
          seconds: that it took.
        """
        config = self._config
        values = {f"{_EVAL}{name}": value for name, value in found.numbers.items()}
        if step >= max(self.done, default=0):
            found = found.with_intervals(draws=config.evaluation.bootstrap, seed=config.seed)
            write_found(
                self.folder,
                found,
                step=step,
                page=config.report.enabled,
                title=f"Evaluation of {self._subject.name}",
                description=f"at step {step:,}",
                provenance={
                    **self._subject.provenance,
                    "step": str(step),
                    "seed": str(config.seed),
                    "nlip_jax": __version__,
                },
            )
            results = found.numbers | {"step": step, "time/evaluation_seconds": seconds}
            write_results(self.folder / "results.json", results)
        if config.log.tensorboard:
            self._write_events(step, values)
        self._add_line({"step": step, **values})

    def _write_events(self, step: int, values: Mapping[str, float]) -> None:
        from tensorboardX import SummaryWriter

        folder = self.folder / "tensorboard"
        for path in folder.glob(f"*.{step}"):  # of a killed evaluation, that did not get further
            path.unlink()
        suffix = f".{step}"  # beside it, names have but the second
        events = SummaryWriter(str(folder), filename_suffix=suffix)
        for name, value in values.items():
            if math.isfinite(value):
                events.add_scalar(name, value, step)
        events.close()

    def _add_line(self, line: dict[str, float]) -> None:
        """In the order of steps, whatever the order of evaluation."""
        path = self.folder / "metrics.jsonl"
        lines = [known for known in read_metrics(path) if known["step"] != line["step"]]
        lines = sorted([*lines, line], key=lambda known: known["step"])
        write_atomically(path, "".join(json_text(known) + "\n" for known in lines).encode())

    def where_to_look(self, step: int) -> str:
        """The last line of an evaluation.

        Args:
          step: whose results were asked for.
        """
        newest = self.results()["step"]
        if step != newest:
            others = f"other files are of step {newest}"
            return f"these numbers are in {self.folder / 'metrics.jsonl'}; its {others}"
        if self._config.report.enabled:
            return f"the page of this evaluation is {self.folder / PAGE}"
        return f"the numbers of this evaluation are in {self.folder / 'results.json'}"


def _some(names: Iterable[str]) -> str:
    """A few of the names."""
    first, more = list(names)[:_SHOWN], len(list(names)) - _SHOWN
    return ", ".join(first) + (f" and {more} more" if more > 0 else "")


def check_place(folder: Path) -> None:
    """Refuses a folder that is somebody else's, before anything is written into it.

    Raises:
      UsageError: a file, a run, or a folder of other things.
    """
    if folder.exists() and not folder.is_dir():
        raise UsageError(f"--output={folder} is a file; name a folder")
    names = {path.name for path in folder.iterdir()} if folder.exists() else set()
    for name in _NOT_OURS:
        if name in names:
            raise UsageError(
                f"--output={folder} is the folder of a run (it holds {name}); name another"
            )
    others = {name for name in names if not name.endswith(".tmp")} - _MADE_BEFORE
    if others and _MARK not in names:
        raise UsageError(
            f"--output={folder} is not empty and not of an evaluation (it holds "
            f"{sorted(others)[0]}); name another"
        )
