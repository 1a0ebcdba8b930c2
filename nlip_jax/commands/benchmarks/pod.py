"""What the loss takes of each chip of a pod that nobody has to own: compiled for 256 chips of v5e.

libtpu compiles for a topology on any machine. Memory is the compiler's plan for each chip: what it
allocates beside arguments and results.
"""

import importlib.util
import json
import os
import subprocess
import sys

from nlip_jax.errors import RunError, UsageError

BATCHES = (32_768, 262_144, 1_048_576)
IMPLEMENTATIONS = ("dense", "tiled", "ring")
TOPOLOGY = {"TPU_ACCELERATOR_TYPE": "v5litepod-256", "TPU_WORKER_HOSTNAMES": "localhost"}
STEP_BATCH, MICRO_BATCHES = 1_048_576, 64


def run() -> dict[str, float]:
    """Compile InfoNCE, forward and backward, d = 512, and a ViT-B/16 training step with GradCache.

    Returns:
        Metrics by name: megabytes (1e6 bytes) a chip; without one where it does not fit the chip.

    Raises:
        UsageError: libtpu is missing.
    """
    if importlib.util.find_spec("libtpu") is None:
        raise UsageError(
            "this benchmark compiles for TPUs with libtpu, which is missing: "
            "pip install nlip_jax[plan], in an environment of its own"
        )
    numbers = {}
    for batch in BATCHES:
        for impl in IMPLEMENTATIONS:
            found = _compile({"impl": impl, "batch": batch})
            if found is not None:
                numbers[f"pod/loss/{batch}/{impl}_temp_mb"] = found["temp_mb"]
    found = _compile({"batch": STEP_BATCH, "micro_batches": MICRO_BATCHES})
    if found is not None:
        numbers |= {f"pod/vitb16/{STEP_BATCH}/{name}": value for name, value in found.items()}
    return numbers


def _compile(case: dict) -> dict[str, float] | None:
    """Memory of a case, None where it does not fit; in a process that sees the topology."""
    print(f"compiling {case}", file=sys.stderr, flush=True)
    environment = os.environ | TOPOLOGY | {"JAX_PLATFORMS": "cpu"}
    command = [sys.executable, "-m", "nlip_jax.commands.benchmarks.pod_case", json.dumps(case)]
    ran = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if ran.returncode:
        last = (ran.stderr.strip().splitlines() or ["killed"])[-1]
        raise RunError(f"{case}: exit code {ran.returncode}: {last}")
    found = json.loads(ran.stdout.splitlines()[-1])
    if "too_large" in found:
        print(f"does not fit: {found['too_large']}", file=sys.stderr)
        return None
    return found
