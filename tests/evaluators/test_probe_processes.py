"""Two processes train the probes and clusters that one trains, to float32 sums."""

import json
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
from probe_process import train
from tiny import mesh_of


def test_two_processes():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{probe.getsockname()[1]}"
    program = Path(__file__).with_name("probe_process.py")
    workers = [
        subprocess.Popen(
            [sys.executable, program, str(rank), address], stdout=subprocess.PIPE, text=True
        )
        for rank in range(2)
    ]
    try:
        alone = train(mesh_of(1))
        first, second = (
            json.loads(worker.communicate(timeout=300)[0].splitlines()[-1]) for worker in workers
        )
    finally:
        for worker in workers:
            worker.kill()
    assert first == second
    for name, values in alone.items():
        np.testing.assert_allclose(first[name], values, rtol=1e-3, atol=1e-4, err_msg=name)
