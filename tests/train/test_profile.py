"""Traces: of which steps, where, and what is said of them."""

import gzip
import json

import jax
import jax.numpy as jnp
import pytest

from nlip_jax.errors import UsageError
from nlip_jax.train.profile import Profiler, Trace, check_trace, parse_trace


def test_parse(tmp_path):
    assert parse_trace("", folder=tmp_path) is None
    trace = parse_trace("20..25", folder=tmp_path)
    assert trace == Trace(20, 25, tmp_path) and str(trace) == "--profile=20..25"
    check_trace(trace, total=25)
    check_trace(None, total=1)
    with pytest.raises(UsageError, match=r"--profile=20\.\.25: the run has 24 steps"):
        check_trace(trace, total=24)


@pytest.mark.parametrize("text", ["5", "5..", "0..3", "6..5", "-1..3", "a..b", "3-5", "3..5 "])
def test_what_is_no_range(tmp_path, text):
    with pytest.raises(UsageError, match=r"--profile=20\.\.25"):
        parse_trace(text, folder=tmp_path)


def train(trace: Trace | None, *, start: int, stop: int) -> list[str]:
    """Steps `start + 1` to `stop` as the loop makes them; returns what was said."""
    said = []
    profiler = Profiler(trace, start=start, say=said.append)
    compiled = jax.jit(lambda x: x @ x).lower(jnp.eye(8)).compile()
    try:
        for step in range(start + 1, stop + 1):
            with profiler.step(step):
                result = compiled(jnp.eye(8))
            profiler.end_step(step, result)
    finally:
        profiler.close()
    return said


def traced_steps(folder) -> set[str]:
    (file,) = folder.glob("plugins/profile/*/*.trace.json.gz")
    events = json.loads(gzip.decompress(file.read_bytes()))["traceEvents"]
    return {event["args"]["step_num"] for event in events if event.get("name") == "train"}


def test_the_steps_of_the_trace(tmp_path):
    (line,) = train(Trace(3, 5, tmp_path), start=0, stop=8)
    assert traced_steps(tmp_path) == {"3", "4", "5"}
    assert f"steps 3 to 5 is in {tmp_path}" in line and "xprof" in line
    assert "\n" not in line


def test_a_run_that_ends_early_leaves_what_there_is(tmp_path):
    (line,) = train(Trace(3, 5, tmp_path), start=0, stop=4)
    assert traced_steps(tmp_path) == {"3", "4"}
    assert "steps 3 to 4" in line


def test_steps_that_were_done_before(tmp_path):
    first, second = train(Trace(3, 5, tmp_path), start=3, stop=6)
    assert "steps up to 3 are done already" in first and "steps 4 to 5" in second
    assert traced_steps(tmp_path) == {"4", "5"}
    (line,) = train(Trace(3, 5, tmp_path / "none"), start=5, stop=6)
    assert "steps up to 5 are done already" in line
    assert not (tmp_path / "none").exists()


def test_without_a_trace_nothing_is_said_or_written(tmp_path):
    assert train(None, start=0, stop=2) == []
