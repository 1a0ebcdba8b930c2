"""Trains probes and clusters on random rows, on any mesh; also run as one of several processes.

    python tests/evaluators/probe_process.py RANK ADDRESS
"""

import json
import sys
from pathlib import Path

import jax
import numpy as np


def train(mesh) -> dict[str, list[float]]:
    """What comes out, as lists of numbers."""
    from labelled_rows import blobs

    from nlip_jax.estimators.kmeans import kmeans
    from nlip_jax.evaluators.linear_probe import Lbfgs
    from nlip_jax.evaluators.logistic import make_problem
    from nlip_jax.evaluators.probe_rows import ProbeRows
    from nlip_jax.evaluators.sgd_probe import Sgd

    x, labels = blobs(131, classes=4, noise=1.0)
    rows = ProbeRows(x=x, labels=labels.astype(np.int32))
    problem = make_problem(x, labels, num_classes=4, mesh=mesh)
    fit = Lbfgs().fit(problem, 0.1)
    clusters = kmeans(x, num_clusters=4, mesh=mesh, init="k-means++", num_restarts=2)
    sgd = Sgd(batch_size=32, epochs=2).run(rows, rows, num_classes=4, mesh=mesh)
    return {
        "weights": fit.linear.weights.ravel().tolist(),
        "sgd": sgd.rank.tolist(),
        "centroids": clusters.centroids.ravel().tolist(),
        "labels": clusters.labels.tolist(),
    }


if __name__ == "__main__":
    rank, address = int(sys.argv[1]), sys.argv[2]
    root = Path(__file__).resolve().parents[2]
    sys.path[:0] = [str(root), str(root / "tests")]
    jax.config.update("jax_num_cpu_devices", 3)
    jax.distributed.initialize(address, num_processes=2, process_id=rank)
    from nlip_jax.sharding import make_mesh

    print(json.dumps(train(make_mesh())))
