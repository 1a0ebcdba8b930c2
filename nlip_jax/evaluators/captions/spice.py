"""SPICE 1.0, by its authors' Java program: F-score over the tuples of scene graphs.

Anderson et al. 2016. The program parses with Stanford CoreNLP 3.6.0, which pycocoevalcap downloads
on request. Its cache is not used: it would be written into the installed package.
"""

import json
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from nlip_jax.errors import RunError
from nlip_jax.evaluators.captions.java_parts import QUIET, find_java_parts, require
from nlip_jax.evaluators.captions.scored import Captioned, Scores

_PARSER = ("stanford-corenlp-3.6.0.jar", "stanford-corenlp-3.6.0-models.jar")


def find_spice() -> list[str]:
    """The command that starts SPICE, without the names of its files.

    Raises:
      UsageError: Java, the package, the program or its parser is missing.
    """
    parts = find_java_parts("spice")
    folder = parts.folder / "spice"
    for name in _PARSER:
        require(
            folder / "lib" / name,
            metric="spice",
            remedy="download it with python -c 'from pycocoevalcap.spice.get_stanford_models import"
            " get_stanford_models as get; get()', or leave the metric out",
        )
    jar = require(
        folder / "spice-1.0.jar",
        metric="spice",
        remedy="install it again: pip install --force-reinstall pycocoevalcap",
    )
    return [parts.java, QUIET, "-Xmx8G", "-jar", str(jar)]


def spice(captioned: Captioned) -> Scores:
    """Returns "spice", the mean over images."""
    pairs = zip(captioned.produced, captioned.references, strict=True)
    asked = [
        {"image_id": i, "test": produced, "refs": list(references)}
        for i, (produced, references) in enumerate(pairs)
    ]
    found = _run(find_spice(), asked)
    score = {image["image_id"]: image["scores"]["All"]["f"] for image in found}
    per_image = np.array([float(score[i]) for i in range(len(asked))])
    return Scores({"spice": float(per_image.mean())}, {"spice": per_image})


def _run(command: Sequence[str], asked: list[dict]) -> list[dict]:
    """Runs the program to its end; its files go when it has ended."""
    with tempfile.TemporaryDirectory(prefix="spice-") as folder:
        wanted, found = Path(folder, "captions.json"), Path(folder, "scores.json")
        wanted.write_text(json.dumps(asked))
        # A session of its own: Ctrl-C reaches this process alone, and `run` then kills it.
        ended = subprocess.run(
            [*command, str(wanted), "-out", str(found), "-subset", "-silent"],
            cwd=Path(command[command.index("-jar") + 1]).parent,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            start_new_session=True,
            check=False,
        )
        if ended.returncode or not found.exists():
            lines = ended.stderr.decode(errors="replace").strip().splitlines()
            reason = lines[-1] if lines else "without a word"
            raise RunError(f"SPICE's Java program ended with code {ended.returncode}: {reason}")
        return json.loads(found.read_text())
