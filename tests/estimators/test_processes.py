import json
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np

from nlip_jax.estimators.gaussian_mixture import fit

WORKER = """
import json, sys
import jax
import numpy as np
rank, address, path = int(sys.argv[1]), sys.argv[2], sys.argv[3]
jax.config.update("jax_num_cpu_devices", 2)
jax.distributed.initialize(address, num_processes=2, process_id=rank)
from nlip_jax.estimators.gaussian_mixture import fit, posterior
losses = np.load(path)
share = losses[:1000] if rank == 0 else losses[1000:]
mesh = jax.sharding.Mesh(np.array(jax.devices()), ("data",))
found = fit(share, mesh=mesh)
probability = posterior(found.mixture, share, mesh=mesh)
print(json.dumps({
    "counts": found.counts.tolist(), "mean": found.mixture.mean.tolist(),
    "num_losses": found.num_losses, "num_non_finite": found.num_non_finite,
    "posterior_size": len(probability),
}))
"""


def test_processes_with_uneven_shares_fit_one_mixture(tmp_path):
    rng = np.random.default_rng(0)
    losses = (2 + rng.normal(size=5000) + 3 * (rng.random(5000) < 0.4)).astype(np.float32)
    losses[1234] = np.nan
    np.save(tmp_path / "losses.npy", losses)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{probe.getsockname()[1]}"
    command = [sys.executable, "-c", WORKER]
    workers = [
        subprocess.Popen(
            [*command, str(rank), address, str(tmp_path / "losses.npy")],
            cwd=Path(__file__).resolve().parents[2],
            stdout=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]
    try:
        # The transport prints lines of its own before.
        outputs = [worker.communicate(timeout=300)[0].splitlines() for worker in workers]
        results = [json.loads(lines[-1]) for lines in outputs]
    finally:
        for worker in workers:
            worker.kill()

    alone = fit(losses)
    for result, size in zip(results, (1000, 4000), strict=True):
        np.testing.assert_array_equal(result["counts"], alone.counts)
        np.testing.assert_array_equal(np.float32(result["mean"]), alone.mixture.mean)
        assert (result["num_losses"], result["num_non_finite"]) == (4999, 1)
        assert result["posterior_size"] == size
