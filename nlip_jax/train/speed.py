"""What the devices could do at most: the measure that MFU holds a run against.

MFU, model FLOPs utilisation: the matmul FLOPs that the model needs (forward and backward, nothing
for what is computed twice) a second, as a share of the devices' peak (PaLM, arXiv:2204.02311, B).
"""

import dataclasses
import fnmatch
from collections.abc import Mapping

# TFLOP/s of one device in bfloat16 (float16 on Volta and Turing, which lack it), for dense matrices
# and float32 sums: `device_kind` of JAX, as a pattern -> peak; the first that fits counts. TPUs:
# Google Cloud's page of each version; each of the two cores of a v2, v3 and 7x chip is a device.
# GPUs: NVIDIA's data sheets and architecture papers, some of which give the double, for sparse
# matrices.
PEAK_TFLOPS = {
    "TPU v2": 23.0,
    "TPU v3": 61.5,
    "TPU v4": 275.0,
    "TPU v5 lite": 197.0,
    "TPU v5e": 197.0,
    "TPU v5": 459.0,
    "TPU v5p": 459.0,
    "TPU v6 lite": 918.0,
    "TPU v6e": 918.0,
    "TPU7x": 1153.5,
    "*MIG*": None,  # a part of a card, of no published peak
    "NVIDIA GB200*": 2500.0,
    "NVIDIA B200*": 2250.0,
    "NVIDIA H200 NVL*": 835.5,
    "NVIDIA H200*": 989.0,
    "NVIDIA GH200*": 989.0,
    "NVIDIA H100 PCIe*": 756.0,
    "NVIDIA H100 NVL*": 835.5,
    "NVIDIA H100*": 989.0,
    "NVIDIA A100*": 312.0,
    "NVIDIA L40S*": 362.0,
    "NVIDIA L40*": 181.0,
    "NVIDIA L4*": 121.0,
    "NVIDIA A10": 125.0,
    "NVIDIA GeForce RTX 4090": 165.2,
    "NVIDIA GeForce RTX 3090": 71.0,
    "Tesla V100-SXM*": 125.0,
    "Tesla V100-PCIE*": 112.0,
    "Tesla T4": 65.0,
}


def peak_tflops(device_kind: str) -> float | None:
    """TFLOP/s of bfloat16 matmuls on a device at most; None for a kind not in the table."""
    found = (peak for kind, peak in PEAK_TFLOPS.items() if fnmatch.fnmatchcase(device_kind, kind))
    return next(found, None)


def training_flops(forward: Mapping[str, int]) -> dict[str, int]:
    """Forward and backward, which takes twice as much: the gradients of inputs and of weights."""
    return {part: 3 * count for part, count in forward.items()}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Yardstick:
    """What the speed of a run is measured by.

    Attributes:
      flops: of one example, forward and backward, by part; None where they are not known.
      tflops: peak of one device, TFLOP/s; None where it is not known.
      devices: that train together.
    """

    flops: Mapping[str, int] | None
    tflops: float | None
    devices: int

    @property
    def peak_rate(self) -> float | None:
        """Examples/s at the peak of all devices; None where not known. MFU is the share of it."""
        if self.flops is None or self.tflops is None:
            return None
        return self.devices * self.tflops * 1e12 / sum(self.flops.values())
