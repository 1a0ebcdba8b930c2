"""Where the Java programs lie that METEOR and SPICE need."""

import importlib.util
import shutil
from dataclasses import dataclass
from pathlib import Path

from nlip_jax.errors import UsageError

# A JVM leaves no file of performance data in the temporary folder.
QUIET = "-XX:-UsePerfData"


@dataclass(frozen=True)
class JavaParts:
    """What a metric in Java is run with.

    Attributes:
      java: the program.
      folder: of the package pycocoevalcap.
    """

    java: str
    folder: Path


def find_java_parts(metric: str) -> JavaParts:
    """Finds Java and pycocoevalcap, which is never imported.

    Args:
      metric: that asks for them, for messages.

    Raises:
      UsageError: one of them is missing.
    """
    java = shutil.which("java")
    if java is None:
        raise UsageError(
            f"the metric {metric!r} runs in Java, and there is no `java` on the PATH: install a "
            "Java runtime (apt-get install default-jre-headless), or leave the metric out"
        )
    spec = importlib.util.find_spec("pycocoevalcap")
    if spec is None:
        raise UsageError(
            f"the metric {metric!r} needs the package pycocoevalcap, which is not installed: "
            "pip install 'nlip_jax[eval]', or leave the metric out"
        )
    return JavaParts(java, Path(next(iter(spec.submodule_search_locations))))


def require(file: Path, *, metric: str, remedy: str) -> Path:
    """The same file.

    Raises:
      UsageError: it is not there.
    """
    if not file.is_file():
        raise UsageError(f"the metric {metric!r} needs {file}, which is not there: {remedy}")
    return file
