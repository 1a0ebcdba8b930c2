"""Killed anywhere, a run ends as if it had never been: same parameters, same results."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
# Two in warm-up; in the loss pass, between its fragments and their merge, in the mixture fit,
# around the column's DONE, during a save in the background, in evaluation, in the report.
MOMENTS = [
    "train step=0",
    "checkpoint step=4",
    "checkpoint_in_background step=6",
    "loss_pass",
    "fragment index=2",
    "column_merge",
    "mixture_fit",
    "column_before_done column=noise_prob",
    "column_after_done column=noise_prob",
    "checkpoint_in_background step=12",
    "evaluate",
    "report",
]
SHORT = ["fragment index=2", "column_before_done column=noise_prob", "evaluate"]
def run(workdir: Path, arguments: tuple, *, kill_at: str = "") -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, "-m", "nlip_jax", "train", *arguments, f"--workdir={workdir}"],
        cwd=ROOT,
        env=dict(os.environ, NLIP_JAX_KILL_AT=kill_at),
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


def last_event(workdir: Path) -> dict:
    return json.loads((workdir / "events.jsonl").read_text().splitlines()[-1])


def outcome(workdir: Path) -> tuple[dict, list[dict], str]:
    results = json.loads((workdir / "results.json").read_text())
    metrics = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]

    def timeless(values: dict) -> dict:
        return {k: v for k, v in values.items() if not k.startswith(("time/", "eval/time/"))}

    return timeless(results), [timeless(line) for line in metrics], last_event(workdir)["params"]


@pytest.mark.parametrize(
    "moments",
    [pytest.param(SHORT, id="short"), pytest.param(MOMENTS, id="all", marks=pytest.mark.slow)],
)
def test_killed_runs_end_as_if_never_killed(tmp_path, tiny, moments):
    arguments = (*tiny, "--config.checkpoint.every=2 steps", "--config.log.every=1 steps")
    never = run(tmp_path / "never", arguments)
    assert never.returncode == 0, never.stderr
    for moment in moments:
        killed = run(tmp_path / "killed", arguments, kill_at=moment)
        assert killed.returncode == -signal.SIGKILL, (moment, killed.stderr)
        assert last_event(tmp_path / "killed")["phase"] == moment.split()[0]
    finished = run(tmp_path / "killed", arguments)
    assert finished.returncode == 0, finished.stderr

    assert outcome(tmp_path / "killed") == outcome(tmp_path / "never")
    steps = [line["step"] for line in outcome(tmp_path / "killed")[1] if "train/loss" in line]
    assert steps == list(range(1, 13))
    assert (tmp_path / "killed" / "report.html").exists()
    ours = [p for p in Path("/proc").glob("[0-9]*/cmdline") if str(tmp_path) in _text(p)]
    assert not ours


def _text(path: Path) -> str:
    try:
        return path.read_text(errors="replace")
    except OSError:  # it ended meanwhile
        return ""
