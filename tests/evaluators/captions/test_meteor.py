"""METEOR's Java process: its number, and that it ends whatever happens."""

import os
import shutil
import stat
import sys
import time

import pytest

from nlip_jax.errors import RunError, UsageError
from nlip_jax.evaluators.captions import java_parts
from nlip_jax.evaluators.captions import meteor as meteor_module
from nlip_jax.evaluators.captions.meteor import find_meteor, meteor
from nlip_jax.evaluators.captions.scored import Captioned

CAPTIONED = Captioned(
    ["a dog runs across the green grass", "two men ||| ride  horses", "", "the boy eats"],
    [
        ["a brown dog is running on grass", "the dog runs in a field"],
        ["two men riding horses", "a pair of cowboys"],
        ["a red car"],
        ["a child eating food", "the boy is eating an apple"],
    ],
)
EXPECTED = 0.2799450923980824  # of pycocoevalcap 1.2


@pytest.mark.slow  # the JVM reads 60 MB of paraphrases first
def test_equals_pycocoevalcap():
    if shutil.which("java") is None or java_parts.importlib.util.find_spec("pycocoevalcap") is None:
        pytest.skip("no java on the PATH, or pycocoevalcap is not installed")
    found = meteor(CAPTIONED)
    assert found.values["meteor"] == pytest.approx(EXPECTED, abs=1e-9)
    assert not found.per_image  # its value is no mean over images


@pytest.fixture
def program(tmp_path, monkeypatch):
    """Puts a Python program in the place of Java; it writes down its process id."""

    def put(body: str):
        folder = tmp_path / "bin"
        folder.mkdir(exist_ok=True)
        file = folder / "java"
        file.write_text(
            f"#!{sys.executable}\nimport os, sys\n"
            f"open({str(tmp_path / 'pid')!r}, 'w').write(str(os.getpid()))\n{body}\n"
        )
        file.chmod(file.stat().st_mode | stat.S_IXUSR)
        monkeypatch.setenv("PATH", str(folder))
        package = tmp_path / "package"
        for name in ("meteor/meteor-1.5.jar", "meteor/data/paraphrase-en.gz"):
            (package / name).parent.mkdir(parents=True, exist_ok=True)
            (package / name).touch()
        spec = java_parts.importlib.machinery.ModuleSpec("pycocoevalcap", None, is_package=True)
        spec.submodule_search_locations.append(str(package))
        monkeypatch.setattr(java_parts.importlib.util, "find_spec", lambda name: spec)
        return tmp_path / "pid"

    return put


ANSWERS = """
assert sys.argv[1:] == ["-XX:-UsePerfData", "-Xmx2G", "-jar", sys.argv[4],
                        "-", "-", "-stdio", "-l", "en", "-norm"], sys.argv
for line in sys.stdin:
    kind, *rest = line.rstrip("\\n").split(" ||| ")
    print("\\n".join(["0.1"] * len(rest) + ["0.25"]) if kind == "EVAL" else "1 2", flush=True)
"""


def is_gone(file) -> bool:
    """Whether the process has ended and was waited for."""
    with pytest.raises(ProcessLookupError):
        os.kill(int(file.read_text()), 0)
    return True


def test_asks_for_every_image_and_ends(program):
    file = program(ANSWERS)
    assert meteor(CAPTIONED).values == {"meteor": 0.25}
    assert is_gone(file)


def test_a_program_that_dies(program):
    file = program("print('no memory', file=sys.stderr); sys.exit(3)")
    with pytest.raises(RunError, match=r"ended with code 3: no memory$"):
        meteor(CAPTIONED)
    assert is_gone(file)


def test_interrupted(program, monkeypatch):
    """Ctrl-C while it answers: it is ended, and the interrupt goes on."""
    file = program("import time; sys.stdin.readline(); time.sleep(60)")

    def interrupt(self):
        while not file.exists() or not file.read_text():
            time.sleep(0.01)
        raise KeyboardInterrupt

    monkeypatch.setattr(meteor_module._Meteor, "answer", interrupt)
    with pytest.raises(KeyboardInterrupt):
        meteor(CAPTIONED)
    assert is_gone(file)


def test_refuses_without_java(monkeypatch):
    monkeypatch.setenv("PATH", "")
    with pytest.raises(UsageError, match=r"^the metric 'meteor' runs in Java.*install a Java runt"):
        find_meteor()


def test_refuses_without_the_package(program, monkeypatch):
    program(ANSWERS)
    monkeypatch.setattr(java_parts.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UsageError, match=r"pip install 'nlip_jax\[eval\]'"):
        find_meteor()


def test_refuses_without_the_program(program, tmp_path):
    program(ANSWERS)
    (tmp_path / "package/meteor/meteor-1.5.jar").unlink()
    with pytest.raises(UsageError, match=r"meteor-1.5.jar, which is not there: install it again"):
        find_meteor()
