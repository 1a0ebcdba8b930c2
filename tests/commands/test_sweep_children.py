"""Processes of a sweep: their exit codes, what they say, and the signals that are passed on."""

import os
import signal
import subprocess
import sys
import time

import pytest

from nlip_jax.commands.sweeping import child
from nlip_jax.commands.sweeping.child import Children


@pytest.fixture(autouse=True)
def _quick(monkeypatch):
    monkeypatch.setattr(child, "_POLL_SECONDS", 0.02)


def shell(script: str) -> list[str]:
    return ["/bin/sh", "-c", script]


def test_exit_codes_and_words_come_back(tmp_path):
    log = tmp_path / "arm" / "0.log"
    children = Children()
    assert children.run(shell("echo one; echo two >&2; exit 3"), log=log) == 3
    assert children.run(shell("kill -9 $$"), log=log) == -signal.SIGKILL
    assert children.run(shell("cat; echo three"), log=log) == 0  # there is nothing to read
    assert log.read_text() == "one\ntwo\nthree\n"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_is_passed_on_and_waited_for(tmp_path, number, capfd):
    log, handler = tmp_path / "0.log", signal.getsignal(number)
    script = "trap 'sleep 0.1; exit 75' INT TERM; echo ready; while :; do sleep 0.02; done"
    sent = []

    def signal_once():
        if not sent and log.read_text():
            sent.append(number)
            os.kill(os.getpid(), number)

    with Children().listening() as children:
        assert children.run(shell(script), log=log, on_wait=signal_once) == 75
        assert children.is_asked_to_stop
        assert children.interrupts == (number == signal.SIGINT)
        # What was asked for before a process begins is told to it as well.
        assert children.run(shell("sleep 60"), log=log) == -signal.SIGTERM
    assert signal.getsignal(number) is handler
    assert ("Ctrl-C again" in capfd.readouterr().err) == (number == signal.SIGINT)


def test_a_process_that_does_not_listen_is_ended_by_the_third_interrupt(tmp_path):
    log = tmp_path / "0.log"

    def interrupt():
        if log.read_text():
            os.kill(os.getpid(), signal.SIGINT)

    with Children().listening() as children:
        script = "trap '' INT; echo ready; while :; do sleep 0.02; done"
        assert children.run(shell(script), log=log, on_wait=interrupt) == -signal.SIGKILL
        assert children.interrupts == 3


@pytest.mark.skipif(sys.platform != "linux", reason="the kernel's promise of Linux")
def test_a_killed_sweep_stops_its_process(tmp_path, request):
    program = (
        "import sys\n"
        "from pathlib import Path\n"
        "from nlip_jax.commands.sweeping.child import Children\n"
        "script = 'trap \"echo stopped; exit 75\" TERM; echo ready; while :; do sleep 0.02; done'\n"
        "Children().run(['/bin/sh', '-c', script], log=Path(sys.argv[1]))\n"
    )
    log = tmp_path / "0.log"
    sweep = subprocess.Popen([sys.executable, "-c", program, log], cwd=request.config.rootpath)
    _wait_for(log, "ready")
    sweep.kill()
    sweep.wait()
    _wait_for(log, "stopped")


def _wait_for(log, word):
    deadline = time.monotonic() + 60
    while not (log.exists() and word in log.read_text()):
        assert time.monotonic() < deadline
        time.sleep(0.02)
