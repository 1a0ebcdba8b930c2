"""The same numbers on every mesh, bit for bit: devices of one process and of several."""

import json
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from every_mesh import evaluate
from tiny import mesh_of


@pytest.fixture(scope="module")
def alone():
    return evaluate(mesh_of(1))


def test_the_numbers_mean_something(alone):
    assert 0.01 < alone["retrieval/scenes/image_to_text/recall@10"] < 1
    assert len({value for name, value in alone.items() if name.endswith("sha256")}) >= 8


@pytest.mark.parametrize("devices", [3, 8])
def test_devices_of_one_process(alone, devices):
    assert evaluate(mesh_of(devices)) == alone


def test_split_parameters(alone):
    """With parameters split over devices, too, it is the rows of a device that make the bits."""
    assert evaluate(mesh_of(8, fsdp=4)) == alone


def test_two_processes(alone):
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{probe.getsockname()[1]}"
    program = Path(__file__).with_name("every_mesh.py")
    workers = [
        subprocess.Popen(
            [sys.executable, program, str(rank), address],
            stdout=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]
    try:
        for worker in workers:
            assert json.loads(worker.communicate(timeout=300)[0].splitlines()[-1]) == alone
    finally:
        for worker in workers:
            worker.kill()
