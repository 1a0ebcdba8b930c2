"""SPICE, with a program in the place of Java: its parser's models must be downloaded."""

import stat
import sys
from pathlib import Path

import pytest

from nlip_jax.errors import RunError, UsageError
from nlip_jax.evaluators.captions import java_parts, spice
from nlip_jax.evaluators.captions.scored import Captioned

CAPTIONED = Captioned(["a dog", "two cats"], [["the dog", "a brown dog"], ["cats"]])

ANSWERS = """
quiet, memory, jar, program, asked, out, found, *flags = sys.argv[1:]
assert (quiet, memory, jar, out, flags) == (
    "-XX:-UsePerfData", "-Xmx8G", "-jar", "-out", ["-subset", "-silent"]), sys.argv
images = json.load(open(asked))
assert images[0] == {"image_id": 0, "test": "a dog", "refs": ["the dog", "a brown dog"]}
open(LOG, "w").write(asked)
scores = [{"image_id": one["image_id"], "scores": {"All": {"f": 0.25 * (1 + one["image_id"])}}}
          for one in reversed(images)]
json.dump(scores, open(found, "w"))
"""


@pytest.fixture
def program(tmp_path, monkeypatch):
    def put(body: str):
        file = tmp_path / "bin" / "java"
        file.parent.mkdir()
        log = tmp_path / "log"
        file.write_text(f"#!{sys.executable}\nimport json, sys\nLOG = {str(log)!r}\n{body}\n")
        file.chmod(file.stat().st_mode | stat.S_IXUSR)
        monkeypatch.setenv("PATH", str(file.parent))
        package = tmp_path / "package"
        for name in ("spice-1.0.jar", *(f"lib/{parser}" for parser in spice._PARSER)):
            (package / "spice" / name).parent.mkdir(parents=True, exist_ok=True)
            (package / "spice" / name).touch()
        spec = java_parts.importlib.machinery.ModuleSpec("pycocoevalcap", None, is_package=True)
        spec.submodule_search_locations.append(str(package))
        monkeypatch.setattr(java_parts.importlib.util, "find_spec", lambda name: spec)
        return log

    return put


def test_scores_by_image(program):
    log = program(ANSWERS)
    found = spice.spice(CAPTIONED)
    assert found.per_image["spice"].tolist() == [0.25, 0.5]
    assert found.values == {"spice": 0.375}
    assert not Path(log.read_text()).parent.exists()  # nothing stays behind


def test_a_program_that_dies(program):
    program("print('no parser', file=sys.stderr); sys.exit(1)")
    with pytest.raises(RunError, match=r"SPICE's Java program ended with code 1: no parser$"):
        spice.spice(CAPTIONED)


def test_refuses_without_its_parser(program, tmp_path):
    program(ANSWERS)
    models = tmp_path / "package/spice/lib" / spice._PARSER[1]
    models.unlink()
    with pytest.raises(
        UsageError, match=r"models.jar, which is not there: download it with python"
    ):
        spice.find_spice()
