"""`replay`: repeat a step of a run, such as a loss spike, and show what was in its batch."""

import contextlib
import math
import sys
from pathlib import Path

import jax
import numpy as np

from nlip_jax.commands import session as sessions
from nlip_jax.commands import workdir as workdirs
from nlip_jax.commands.json_file import check_json_file, write_json_file
from nlip_jax.commands.repeat import Repeated, find_checkpoint, repeat
from nlip_jax.commands.session import Session
from nlip_jax.commands.table import COMMANDS
from nlip_jax.config import parse_flags
from nlip_jax.data.failures import ReadError
from nlip_jax.data.images.decode import to_pixels
from nlip_jax.errors import UsageError
from nlip_jax.report import replay_page
from nlip_jax.report.records import ReplayedPair, ReplayReport
from nlip_jax.train import spike_log
from nlip_jax.train.metrics import read_metrics

_TOP = 10
_CAPTION = 80  # characters of a caption on the terminal


def main(argv: list[str]) -> int:
    """Runs the command; returns the exit code."""
    values = parse_flags(argv, command="replay", known=COMMANDS["replay"].flags)
    if not values["workdir"]:
        raise UsageError("--workdir=FOLDER of a run is missing")
    workdir = Path(values["workdir"]).expanduser()
    config = workdirs.read_config(workdir)
    step = _count(values["step"], flag="step")
    top = _count(values["top"] or str(_TOP), flag="top")
    json_file = check_json_file(values["json"])
    page = check_json_file(values["page"], flag="page")

    sessions.start_processes()
    run = sessions.open_session(config, workdir)
    workdirs.check_data(workdir, run.data_description)
    if step > run.plan.total:
        raise UsageError(f"--step={step}: the run in {workdir} has {run.plan.total} steps")
    leader = jax.process_index() == 0
    checkpoint = find_checkpoint(run, step=step)
    beginning = "the start" if checkpoint is None else f"the checkpoint of step {checkpoint}"
    if leader:
        count = step - (checkpoint or 0)
        print(f"repeating {count} step{'s' * (count > 1)} from {beginning}", file=sys.stderr)
    repeated = repeat(run, step=step, checkpoint=checkpoint)
    if not leader:
        return 0

    record = recorded_loss(workdir, step)
    numbers = to_numbers(repeated, step=step, record=record)
    pairs = worst_pairs(run, repeated, count=top)
    print("\n".join(describe(repeated, step=step, record=record, pairs=pairs)))
    if page is not None:
        report = ReplayReport(
            title=f"Step {step} of {workdir.name}",
            description=compare(repeated, record),
            results=numbers,
            pairs=pairs,
            provenance={
                "run": str(workdir),
                "repeated from": beginning,
                "data": run.fingerprint,
                "seed": str(config.seed),
            },
        )
        replay_page.write(page, report)
    if json_file is not None:
        write_json_file(json_file, numbers | pair_numbers(pairs))
    return 0


def recorded_loss(workdir: Path, step: int) -> tuple[float, str] | None:
    """The loss that the run wrote down for a step, and in which file; None if it did not."""
    for file, name in ((spike_log.FILE, "loss"), ("metrics.jsonl", "train/loss")):
        for line in read_metrics(workdir / file):
            if line["step"] == step and name in line:
                return line[name], file
    return None


def is_recorded(repeated: Repeated, record: tuple[float, str]) -> bool:
    """Whether the loss came out again, bit for bit."""
    loss = repeated.metrics["loss"]
    return loss == record[0] or (math.isnan(loss) and math.isnan(record[0]))


def compare(repeated: Repeated, record: tuple[float, str] | None) -> str:
    """A sentence on the loss beside what the run wrote down."""
    loss = f"loss {repeated.metrics['loss']:.9g}"
    if record is None:
        return f"{loss}, which the run did not write down at this step"
    if is_recorded(repeated, record):
        return f"{loss}, bit for bit what {record[1]} says"
    return f"{loss}, where {record[1]} says {record[0]:.9g}"


def worst_pairs(run: Session, repeated: Repeated, *, count: int) -> list[ReplayedPair]:
    """The pairs with the highest loss, worst first; NaN is worse than any number."""
    if repeated.pair_losses is None:
        return []
    ranked = np.where(np.isnan(repeated.pair_losses), np.inf, repeated.pair_losses)
    pairs = []
    for row in np.argsort(-ranked, kind="stable")[:count].tolist():
        example_id, epoch = int(repeated.example_ids[row]), int(repeated.epochs[row])
        image_id = run.source.image_id(example_id)
        place = run.source.place(image_id)
        with contextlib.suppress(ReadError):  # it was read a moment ago: the storage is moody
            pair = ReplayedPair(
                example_id=example_id,
                image=to_pixels(
                    run.source.picture(image_id), max_pixels=run.config.data.max_pixels
                ),
                caption=run.source.caption(example_id, epoch),
                pair_loss=float(repeated.pair_losses[row]),
                shard=place.shard,
                key=place.key,
            )
            pairs.append(pair)
    return pairs


def describe(
    repeated: Repeated,
    *,
    step: int,
    record: tuple[float, str] | None,
    pairs: list[ReplayedPair],
) -> list[str]:
    """What was found, in lines."""
    metrics, prefix = repeated.metrics, "grad_norm/"
    towers = {name: norm for name, norm in metrics.items() if name.startswith(prefix)}
    lines = [f"step {step}: {compare(repeated, record)}"]
    if metrics.get("loss_z"):  # 0 before the end of the window
        lines.append(
            f"z {metrics['loss_z']:.3g}: the losses before had mean {metrics['loss_mean']:.4g} "
            f"and deviation {metrics['loss_deviation']:.3g}"
        )
    lines.append(
        f"gradient norm {metrics['grad_norm']:.4g}: "
        + ", ".join(f"{name.removeprefix(prefix)} {norm:.4g}" for name, norm in towers.items())
    )
    if repeated.pair_losses is None:
        return [*lines, "this method does not tell the losses of single pairs"]
    lines.append(f"the {len(pairs)} pairs with the highest loss, of {len(repeated.pair_losses)}:")
    return lines + [
        f"  {pair.pair_loss:.4g} nats  example {pair.example_id}, {pair.key} in {pair.shard}: "
        f"{pair.caption[:_CAPTION]!r}"
        for pair in pairs
    ]


def to_numbers(
    repeated: Repeated, *, step: int, record: tuple[float, str] | None
) -> dict[str, float]:
    """What was found, as flat numbers."""
    numbers = {f"replay/{name}": value for name, value in repeated.metrics.items()}
    if record is not None:
        numbers["replay/recorded_loss"] = record[0]
        numbers["replay/is_recorded_loss"] = float(is_recorded(repeated, record))
    return {"replay/step": float(step)} | numbers


def pair_numbers(pairs: list[ReplayedPair]) -> dict[str, float]:
    """The worst pairs as flat numbers, from 1."""
    numbers = {}
    for rank, pair in enumerate(pairs, start=1):
        numbers[f"replay/pair/{rank}/example_id"] = float(pair.example_id)
        numbers[f"replay/pair/{rank}/loss"] = pair.pair_loss
    return numbers


def _count(text: str, *, flag: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise UsageError(f"--{flag}={text}: must be a whole number, 1 or more")
    return int(text)
