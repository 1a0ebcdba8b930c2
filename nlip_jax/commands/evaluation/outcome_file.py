"""`outcomes.npz`: what the metrics of an evaluation are the means of, for comparisons.

Plain arrays: "step", "sets" and "fingerprints", both `[k]` texts, and for every metric with samples
"KIND/SET/METRIC.values" and, where it has groups, "KIND/SET/METRIC.groups", both `[n]`.
"""

import io
import zipfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from nlip_jax.errors import UsageError
from nlip_jax.files import write_atomically
from nlip_jax.outcome import Outcome, Samples

FILE = "outcomes.npz"
_VALUES, _GROUPS = ".values", ".groups"


def write_outcomes(
    folder: Path, outcomes: Mapping[str, Outcome], *, sets: Mapping[str, str], step: int
) -> None:
    """Writes the samples of all outcomes.

    Args:
      folder: where the file goes.
      outcomes: by KIND/SET.
      sets: KIND/SET -> fingerprint of its examples.
      step: that was evaluated.
    """
    arrays = {
        "step": np.array(step, np.int64),
        "sets": np.array(list(sets), np.str_),
        "fingerprints": np.array(list(sets.values()), np.str_),
    }
    for name, outcome in outcomes.items():
        for metric, samples in outcome.samples.items():
            arrays[f"{name}/{metric}{_VALUES}"] = np.asarray(samples.values)
            if samples.groups is not None:
                arrays[f"{name}/{metric}{_GROUPS}"] = np.asarray(samples.groups)
    file = io.BytesIO()
    np.savez_compressed(file, **arrays)
    write_atomically(folder / FILE, file.getvalue())


def read_outcomes(
    folder: Path, *, step: int | None = None
) -> tuple[dict[str, Samples], dict[str, str]]:
    """Samples by KIND/SET/METRIC, and the fingerprint of every KIND/SET.

    Args:
      folder: where the file is.
      step: of the results beside it; None: of any.

    Raises:
      UsageError: there is no such file, it is damaged, or of another step.
    """
    path = folder / FILE
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
        sets = dict(zip(arrays["sets"].tolist(), arrays["fingerprints"].tolist(), strict=True))
        found = int(arrays["step"])
    except FileNotFoundError as error:
        raise UsageError(
            f"{folder} has no {FILE}: name the folder of a finished run or an --output of evaluate"
        ) from error
    except (OSError, ValueError, KeyError, zipfile.BadZipFile) as error:
        raise UsageError(f"{path} is damaged ({error}); evaluate again") from error
    if step not in (None, found):
        raise UsageError(
            f"{path} is of step {found}, and results.json of step {step}: an evaluation is being "
            "written there, or was cut short; wait for it, or run it again"
        )
    samples = {
        name.removesuffix(_VALUES): Samples(
            values=values, groups=arrays.get(name.removesuffix(_VALUES) + _GROUPS)
        )
        for name, values in arrays.items()
        if name.endswith(_VALUES)
    }
    return samples, sets
