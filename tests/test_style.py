"""The linters, so that one command tells everything."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


def check(*command: str | Path):
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout + result.stderr


def test_ruff():
    check(sys.executable, "-m", "ruff", "check", "--quiet", "--no-cache")


def test_shellcheck():
    if shutil.which("shellcheck") is None:
        pytest.skip("shellcheck is not installed")
    check("shellcheck", "-x", *sorted(ROOT.glob("launch/*.sh")), ROOT / ".ci/run")
