"""METEOR 1.5 for English, by its authors' Java program, as the COCO protocol runs it.

Denkowski and Lavie 2014. The program is started once for all images of a set.
"""

import contextlib
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from nlip_jax.errors import RunError
from nlip_jax.evaluators.captions.java_parts import QUIET, find_java_parts, require
from nlip_jax.evaluators.captions.scored import Captioned, Scores

_SEPARATOR = " ||| "
_DATA = "paraphrase-en.gz"


def find_meteor() -> list[str]:
    """The command that starts METEOR.

    Raises:
      UsageError: Java, the package or the program is missing.
    """
    parts = find_java_parts("meteor")
    remedy = "install it again: pip install --force-reinstall pycocoevalcap"
    folder = parts.folder / "meteor"
    for file in (folder / "data" / _DATA, folder / "meteor-1.5.jar"):
        require(file, metric="meteor", remedy=remedy)
    return [
        *(parts.java, QUIET, "-Xmx2G", "-jar", str(folder / "meteor-1.5.jar")),
        *("-", "-", "-stdio", "-l", "en", "-norm"),
    ]


def meteor(captioned: Captioned) -> Scores:
    """Returns "meteor", of the counts of all images together: it is no mean over images."""
    with _Meteor.started(find_meteor()) as process:
        counts = [
            process.ask(_SEPARATOR.join(["SCORE", *references, _cleaned(produced)]))
            for produced, references in zip(captioned.produced, captioned.references, strict=True)
        ]
        process.say(_SEPARATOR.join(["EVAL", *counts]))
        for _ in counts:  # a score for each image comes first
            process.answer()
        return Scores({"meteor": float(process.answer())})


def _cleaned(caption: str) -> str:
    return caption.replace("|||", "").replace("  ", " ")


class _Meteor:
    """The running program: a line goes in, a line comes out."""

    def __init__(self, process: subprocess.Popen, complaints: tempfile.TemporaryFile) -> None:
        self._process, self._complaints = process, complaints

    @classmethod
    @contextlib.contextmanager
    def started(cls, command: Sequence[str]) -> Iterator["_Meteor"]:
        """Starts it, and ends it whatever happens.

        It does not belong to the terminal's foreground group, so that Ctrl-C reaches this process
        alone, which then ends it. Should this process be killed, it reads an end of file.
        """
        with (
            tempfile.TemporaryFile() as complaints,
            subprocess.Popen(
                command,
                cwd=Path(command[command.index("-jar") + 1]).parent,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=complaints,
                start_new_session=True,
            ) as process,
        ):
            try:
                yield cls(process, complaints)
            finally:
                process.kill()
                # Nothing is left to flush into a pipe whose reader is gone.
                with contextlib.suppress(OSError):
                    process.stdin.close()

    def say(self, line: str) -> None:
        """Hands a line to it."""
        try:
            self._process.stdin.write(line.replace("\n", " ").encode() + b"\n")
            self._process.stdin.flush()
        except OSError as error:
            raise self._failure() from error

    def answer(self) -> str:
        """Its next line."""
        line = self._process.stdout.readline()
        if not line:
            raise self._failure()
        return line.decode().strip()

    def ask(self, line: str) -> str:
        """What it says to a line."""
        self.say(line)
        return self.answer()

    def _failure(self) -> RunError:
        code = self._process.wait()
        self._complaints.seek(0)
        lines = self._complaints.read().decode(errors="replace").strip().splitlines()
        reason = lines[-1] if lines else "without a word"
        return RunError(f"METEOR's Java program ended with code {code}: {reason}")
