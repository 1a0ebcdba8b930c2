"""What a config file asks a sweep to run and to show: its `SWEEP`."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from nlip_jax.config import read_constant
from nlip_jax.errors import UsageError

_EXAMPLE = "as configs/scenes.py has one"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Run:
    """One training run of a sweep.

    Attributes:
      arm: its name in the config file.
      seed: handed to the config file, which says what it is a seed of.
      uses: arm whose run of the same seed it builds on, such as on its captions; "": none.
    """

    arm: str
    seed: int
    uses: str = ""

    @property
    def name(self) -> str:
        """For people."""
        return f"{self.arm}, seed {self.seed}"

    def config(self, file: str, sweep: Path) -> str:
        """What to hand to --config: the file with this run as its argument."""
        uses = f",run={sweep / self.uses / str(self.seed)}" if self.uses else ""
        return f"{file}:arm={self.arm},seed={self.seed}{uses}"

    def workdir(self, sweep: Path) -> Path:
        """The folder of the run, in that of the sweep."""
        return sweep / self.arm / str(self.seed)

    def log(self, sweep: Path) -> Path:
        """What the run says; beside its folder, which is the run's own."""
        return sweep / self.arm / f"{self.seed}.log"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Sweep:
    """A set of arms that are trained alike but for what they are about.

    Attributes:
      arms: name -> how tables call it; in the order of display.
      seeds: each arm is trained with each of them.
      baseline: the arm that the gap is measured from.
      ceiling: the arm that the gap is measured to.
      headlines: result -> how tables call it; those whose gap is looked at.
      others: the same for results that are only shown, where an arm has them.
      uses: arm -> an earlier one whose runs it builds on; its config gets `run=FOLDER` as well.
    """

    arms: Mapping[str, str]
    seeds: tuple[int, ...]
    baseline: str
    ceiling: str
    headlines: Mapping[str, str]
    others: Mapping[str, str] = dataclasses.field(default_factory=dict)
    uses: Mapping[str, str] = dataclasses.field(default_factory=dict)

    def run(self, arm: str, seed: int) -> Run:
        """One run of an arm."""
        return Run(arm=arm, seed=seed, uses=self.uses.get(arm, ""))

    def runs(self, *, arms: tuple[str, ...]) -> list[Run]:
        """All runs of some arms, seed by seed: the first comparison is whole as soon as can be."""
        return [self.run(arm, seed) for seed in self.seeds for arm in arms]


def read_sweep(file: str) -> Sweep:
    """The `SWEEP` of a config file.

    Args:
      file: FILE.py, whose `get_config` takes `arm=NAME,seed=N`.

    Raises:
      UsageError: it has none, or one that lacks something.
    """
    if ":" in file:
        raise UsageError(
            f"--config={file}: a sweep gives the config file its argument itself; choose with "
            "--arms=A,B and --seeds=0,1"
        )
    found = read_constant(file, "SWEEP")
    if not isinstance(found, Mapping):
        raise UsageError(f"--config={file} names no sweep: it needs SWEEP = {{...}}, {_EXAMPLE}")
    fields = {field.name: field for field in dataclasses.fields(Sweep)}
    for name in found:
        if name not in fields:
            raise UsageError(f"{file}: SWEEP has no {name!r}; it has {', '.join(fields)}")
    for name in fields:
        if name not in found and name not in ("others", "uses"):
            raise UsageError(f"{file}: SWEEP lacks {name!r}, {_EXAMPLE}")
    _check(file, found)
    return Sweep(**{**found, "seeds": tuple(found["seeds"])})


def choose_arms(text: str, sweep: Sweep) -> tuple[str, ...]:
    """The arms of --arms=A,B, all where it is empty, in the order of the config file.

    Raises:
      UsageError: there is no such arm.
    """
    chosen = _words(text) or tuple(sweep.arms)
    for name in chosen:
        if name not in sweep.arms:
            raise UsageError(f"--arms={text}: no arm {name!r}; choose of {', '.join(sweep.arms)}")
    return tuple(name for name in sweep.arms if name in chosen)


def choose_seeds(text: str, sweep: Sweep) -> tuple[int, ...]:
    """The seeds of --seeds=0,1, those of the config file where it is empty.

    Raises:
      UsageError: one is no number from 0 on.
    """
    words = _words(text)
    for word in words:
        if not (word.isascii() and word.isdecimal()):
            raise UsageError(f"--seeds={text}: {word!r} is no whole number from 0 on")
    return tuple(dict.fromkeys(map(int, words))) or sweep.seeds


def _check(file: str, found: Mapping[str, Any]) -> None:
    for name in ("arms", "headlines", "others", "uses"):
        if not isinstance(found.get(name, {}), Mapping):
            raise UsageError(f"{file}: SWEEP[{name!r}] must be a dict of names")
    for name in ("arms", "seeds", "headlines"):
        if not found[name]:
            raise UsageError(f"{file}: SWEEP[{name!r}] is empty, {_EXAMPLE}")
    for name in ("baseline", "ceiling"):
        if found[name] not in found["arms"]:
            raise UsageError(
                f"{file}: SWEEP[{name!r}]={found[name]!r} is no arm; choose one of "
                f"{', '.join(found['arms'])}"
            )
    arms = list(found["arms"])
    for arm, used in found.get("uses", {}).items():
        if arm not in arms or used not in arms[: arms.index(arm)]:
            raise UsageError(
                f"{file}: SWEEP['uses'] has {arm!r}: {used!r}: an arm builds on one before it"
            )
    for seed in found["seeds"]:
        if not isinstance(seed, int) or seed < 0:
            raise UsageError(f"{file}: SWEEP['seeds'] has {seed!r}: whole numbers from 0 on")


def _words(text: str) -> tuple[str, ...]:
    return tuple(word.strip() for word in text.split(",") if word.strip())
