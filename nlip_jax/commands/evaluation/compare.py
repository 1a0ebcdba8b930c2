"""`evaluate --compare RUN_A RUN_B`: is the second worse? Starts without JAX."""

import math
import sys
from pathlib import Path

from nlip_jax import config as configs
from nlip_jax.commands import workdir as workdirs
from nlip_jax.commands.evaluation.comparison_table import format_comparison
from nlip_jax.commands.evaluation.outcome_file import read_outcomes
from nlip_jax.commands.json_file import check_json_file, write_json_file
from nlip_jax.errors import UsageError
from nlip_jax.evaluators.comparison import DRAWS, Comparison, Measured, compare
from nlip_jax.report.evaluation_records import ComparisonReport

WORSE = 3  # exit code
_TOLERANCE = "0.01"
_FLAGS = {"tolerance": "", "page": "", "json": ""}
_NO_METRICS = ("time/", "data/")


def compare_folders(argv: list[str]) -> int:
    """Runs the command; returns the exit code: 3 where a judged metric of the second is worse."""
    folders, values = _read(argv)
    tolerance = _tolerance(values["tolerance"] or _TOLERANCE)
    page = check_json_file(values["page"], flag="page")
    json_file = check_json_file(values["json"])
    a, b = (_measured(folder) for folder in folders)
    found = compare(a, b, tolerance=tolerance)
    for line in found.refused:
        print(line, file=sys.stderr)
    if not found.metrics:
        raise UsageError(
            f"{folders[0]} and {folders[1]} have no metric of the same examples: evaluate both on "
            "the same sets, with `evaluate --config=...`"
        )
    agreement = noise_agreement(*folders)
    print(f"A: {folders[0]}\nB: {folders[1]}")
    print(format_comparison(found, tolerance=tolerance))
    for name, value in agreement.items():
        print(f"noise_prob of A and B, {name}: {value:.4g}")
    if page is not None:
        _write_page(page, found, folders=folders, tolerance=tolerance)
    if json_file is not None:
        write_json_file(json_file, to_numbers(found) | _prefixed(agreement))
    return WORSE if found.is_worse else 0


def noise_agreement(a: Path, b: Path) -> dict[str, float]:
    """How far the noise probabilities of two runs on the same data agree; empty without such."""
    columns = [_newest_column(folder) for folder in (a, b)]
    if None in columns or columns[0][1] != columns[1][1] or columns[0][1] is None:
        return {}
    from nlip_jax.columns import read_column  # brings JAX
    from nlip_jax.evaluators.noise import agreement

    return agreement(*(read_column(column, numberings=[made_for]) for column, made_for in columns))


def to_numbers(found: Comparison) -> dict[str, float]:
    """The comparison as flat numbers; a verdict is -1, 0 or 1."""
    numbers = {"compare/worse": float(found.is_worse)}
    verdicts = {"worse": -1.0, "no difference shown": 0.0, "better": 1.0}
    for metric in found.metrics:
        prefix = f"compare/{metric.name}"
        numbers |= {f"{prefix}/a": metric.a, f"{prefix}/b": metric.b}
        numbers[f"{prefix}/difference"] = metric.difference
        if metric.p is not None:
            numbers |= {f"{prefix}/low": metric.low, f"{prefix}/high": metric.high}
            numbers |= {f"{prefix}/p": metric.p, f"{prefix}/verdict": verdicts[metric.verdict]}
    return numbers


def _prefixed(agreement: dict[str, float]) -> dict[str, float]:
    return {f"compare/noise_prob/{name}": float(value) for name, value in agreement.items()}


def _read(argv: list[str]) -> tuple[list[Path], dict[str, str]]:
    """The two folders and the flags."""
    folders, settings = [], []
    for argument in argv:
        name, equals, value = argument.partition("=")
        if name in ("-compare", "--compare"):
            folders += [value] if equals else []
        elif argument.startswith("-"):
            settings.append(argument)
        else:
            folders.append(argument)
    for setting in settings:
        name = setting.lstrip("-").partition("=")[0]
        if name not in _FLAGS:
            raise UsageError(
                f"--{name} does not go together with --compare, which takes two folders and "
                f"{', '.join(f'--{known}' for known in _FLAGS)}"
            )
    if len(folders) != 2:
        raise UsageError(
            f"--compare takes two folders, RUN_A RUN_B, not {len(folders)}; every other setting is "
            "--name=value"
        )
    values = configs.parse_flags(settings, command="evaluate", known=_FLAGS)
    return [Path(folder).expanduser() for folder in folders], values


def _tolerance(text: str) -> float:
    try:
        tolerance = float(text)
    except ValueError as error:
        raise UsageError(f"--tolerance={text}: must be a number") from error
    if not 0 <= tolerance < math.inf:
        raise UsageError(f"--tolerance={text}: must be 0 or more, in the units of the metrics")
    return tolerance


def _measured(folder: Path) -> Measured:
    if not folder.is_dir():
        raise UsageError(f"{folder} is no folder: name a finished run or an --output of evaluate")
    results = workdirs.read_json(folder / "results.json")
    samples, sets = read_outcomes(folder, step=results.get("step"))
    if not results:
        raise UsageError(f"{folder} has no results.json: it is not finished, or no evaluation")
    numbers = {name: math.nan if value is None else value for name, value in results.items()}
    ends = {f"{name}{end}" for name in numbers for end in ("_low", "_high")}
    metrics = {
        name: value
        for name, value in numbers.items()
        if "/" in name and name not in ends and not name.startswith(_NO_METRICS)
    }
    return Measured(metrics=metrics, samples=samples, sets=sets)


def _newest_column(folder: Path) -> tuple[Path, dict] | None:
    """The newest finished noise_prob of a run, and what its ids mean."""
    done = sorted((folder / "columns" / "noise_prob").glob("*/DONE"))
    return (done[-1].parent, workdirs.read_json(done[-1]).get("made_for")) if done else None


def _write_page(page: Path, found: Comparison, *, folders: list[Path], tolerance: float) -> None:
    from nlip_jax.report import comparison_page

    a, b = (folder.resolve() for folder in folders)
    names = [path.name for path in (a, b)] if a.name != b.name else [str(path) for path in folders]
    report = ComparisonReport(
        title=f"{names[1]} beside {names[0]}",
        description="worse in at least one metric" if found.is_worse else "worse in no metric",
        name_a=names[0],
        name_b=names[1],
        metrics=found.metrics,
        tolerance=tolerance,
        provenance={
            "A": str(a),
            "B": str(b),
            "draws": f"{DRAWS:,} of the paired bootstrap",
            **{f"not compared {i}": line for i, line in enumerate(found.refused, start=1)},
        },
    )
    comparison_page.write(page, report)
