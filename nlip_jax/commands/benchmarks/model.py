"""A training step of ViT-B/16 and CLIP's text tower: examples/s, MFU, and the share of the loss.

`clip`, `siglip` and `nlip` in bfloat16, with the largest batch that fits; InfoNCE alone on a
million pairs; and, where a checkout and PyTorch with CUDA are at hand, the same model in PyTorch on
the same card. Each in a process of its own, as none gives its memory back. Where there is no
accelerator, the same at toy sizes.
"""

import dataclasses
import importlib.util
import json
import subprocess
import sys
from pathlib import Path

from nlip_jax.commands.benchmarks.model_setting import TOY, VITB16
from nlip_jax.errors import RunError

METHODS = ("clip", "siglip", "nlip")
CONTENDER = Path(__file__).parents[3] / "tests" / "benchmarks_torch" / "open_clip_style.py"
_OURS = ("-m", "nlip_jax.commands.benchmarks.model_ours")


def run() -> dict[str, float]:
    """Measures all parts, one after the other.

    Returns:
      model/SETTING/METHOD/{devices, batch_size, step_seconds, examples_per_second, mfu,
      loss_share};
      model/loss_PAIRS_{seconds, temp_mb, tflops} on accelerators; and, with PyTorch,
      model/SETTING/pytorch/{batch_size, examples_per_second, clip_over_pytorch}.

    Raises:
      RunError: a part of ours failed.
    """
    numbers, batch = {}, []
    for method in METHODS:
        found = run_part(*_OURS, method, *batch)
        prefix = f"model/{found['setting']}"
        numbers |= {f"{prefix}/{method}/{name}": x for name, x in found["numbers"].items()}
        # The methods differ by the loss alone: what fits for the first should do for all.
        batch = [str(found["device_batch"])]
    setting = VITB16 if found["setting"] == VITB16.name else TOY
    if setting is TOY:
        print(
            "there is no accelerator here: sizes are those of a toy, and the numbers say nothing "
            "of what an accelerator would do",
            file=sys.stderr,
        )
    if setting.large_loss:
        found = run_part(*_OURS, "large_loss")["numbers"]
        numbers |= {f"model/loss_{setting.large_loss}_{name}": x for name, x in found.items()}
    if not has_contender():
        print(
            f"nothing to compare with: PyTorch with CUDA or {CONTENDER} is missing",
            file=sys.stderr,
        )
        return numbers
    shapes = json.dumps(dataclasses.asdict(setting))
    try:
        found = run_part(str(CONTENDER), f"--setting={shapes}", f"--batch={batch[0]}")
    except RunError as error:
        print(f"nothing to compare with: {error}", file=sys.stderr)
        return numbers
    numbers |= {f"{prefix}/pytorch/{name}": x for name, x in found.items()}
    clip = {name: numbers[f"{prefix}/clip/{name}"] for name in ("examples_per_second", "devices")}
    ours = clip["examples_per_second"] / clip["devices"]  # PyTorch has one
    numbers[f"{prefix}/pytorch/clip_over_pytorch"] = ours / found["examples_per_second"]
    return numbers


def has_contender() -> bool:
    """Whether there is PyTorch with CUDA, and its model: an installed package comes without."""
    if not CONTENDER.exists() or importlib.util.find_spec("torch") is None:
        return False
    import torch

    return torch.cuda.is_available()


def run_part(*arguments: str) -> dict:
    """What a Python process prints as its last line, which is JSON.

    Raises:
      RunError: it failed; it told why on stderr.
    """
    done = subprocess.run(
        [sys.executable, *arguments], stdout=subprocess.PIPE, text=True, check=False
    )
    if done.returncode:
        raise RunError(f"{' '.join(arguments[:3])} ended with exit code {done.returncode}")
    return json.loads(done.stdout.splitlines()[-1])
