"""The launchers' set-up, with pretended interpreters: nothing is installed or fetched."""

import fcntl
import os
import shlex
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
BASH = shutil.which("bash")
PYTHONS = ("python3", "python3.13", "python3.12", "python3.11", "python")
NO_NETWORK = """\
WARNING: Retrying (Retry(total=0)) after connection broken by 'NewConnectionError('<>: Failed to \
establish a new connection: [Errno -3] Temporary failure in name resolution')': /simple/setuptools/
"""
NOTHING_FOUND = "ERROR: No matching distribution found for setuptools>=70.1\n"
CONFLICT = "ERROR: ResolutionImpossible: for help visit https://pip.pypa.io\n"
DISK_FULL = "ERROR: Could not install: [Errno 28] No space left on device\n"

# A pretended interpreter runs programs (-c) for real, after a prelude that changes what they see.
# It makes environments that hold a copy of itself, its pip says and returns what a test asks for,
# and other modules print their arguments.
INTERPRETER = """\
#!{bash}
cd {folder}
echo "$*" >>calls
case "$1 $2" in
  "-c "*) exec {python} -I -S -c "import sys; {prelude}
$2" ;;
  "-m venv") mkdir -p "$3/bin" && cp "$0" "$3/bin/python" && : >"$3/pyvenv.cfg" ;;
  "-m pip") cat pip_says; exit "$(cat pip_returns)" ;;
  *)
    if {{ : >&9; }} 2>/dev/null; then lock=kept; else lock=free; fi
    echo "$$ $lock" >launched
    for argument in "$@"; do printf '[%s]' "$argument"; done ;;
esac
"""


@dataclass
class Machine:
    """A checkout, and a PATH whose interpreters a test chooses."""

    folder: Path

    def __post_init__(self):
        self.checkout = self.folder / "my checkout"
        self.bin = self.folder / "bin"
        self.calls = self.folder / "calls"
        self.venv = self.checkout / ".venv"
        self.bin.mkdir()
        shutil.copytree(ROOT / "launch", self.checkout / "launch")
        for name in ("setup.cfg", "pyproject.toml"):
            shutil.copy(ROOT / name, self.checkout)
        for name in PYTHONS:
            self.command(name, f"echo 'pyenv: {name}: command not found' >&2; exit 127")
        self.pip()

    def command(self, name: str, script: str):
        path = self.bin / name
        path.write_text(script if script.startswith("#!") else f"#!{BASH}\n{script}\n")
        path.chmod(0o755)

    def python(self, name: str = "python3", *, prelude: str = "pass"):
        script = INTERPRETER.format(
            bash=BASH,
            folder=shlex.quote(str(self.folder)),
            python=shlex.quote(sys.executable),
            prelude=prelude,
        )
        self.command(name, script)

    def pip(self, says: str = "", returns: int = 0):
        (self.folder / "pip_says").write_text(says)
        (self.folder / "pip_returns").write_text(str(returns))

    def start(self, script: str, *args: str, **variables: str) -> subprocess.Popen:
        inherited = {name: os.environ[name] for name in ("HOME", "TMPDIR") if name in os.environ}
        return subprocess.Popen(
            [self.checkout / "launch" / script, *args],
            env={"PATH": f"{self.bin}:/usr/bin:/bin"} | inherited | variables,
            cwd=self.folder,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def run(self, script: str, *args: str, **variables: str) -> tuple[int, str, str]:
        self.calls.write_text("")
        process = self.start(script, *args, **variables)
        out, err = process.communicate(timeout=60)
        return process.returncode, out, err

    def launch(self, script: str, *args: str, **variables: str) -> str:
        """What a launch prints, which must succeed."""
        code, out, err = self.run(script, *args, **variables)
        assert code == 0, err
        return out

    def refuse(self, script: str = "local.sh", **variables: str) -> str:
        """The last line that a launch says, which must fail with the exit code of wrong usage."""
        code, out, err = self.run(script, **variables)
        assert (code, out) == (2, "")
        last = err.splitlines()[-1]
        assert last.startswith(f"launch/{script}: ")
        return last

    def called(self, words: str) -> int:
        return sum(call.startswith(words) for call in self.calls.read_text().splitlines())


@pytest.fixture
def machine(tmp_path) -> Machine:
    return Machine(tmp_path)


@pytest.mark.parametrize(
    ("args", "added"),
    [
        ([], "[--config=configs/quickstart.py]"),
        (["--config.seed=1", "--workdir=a b"], "[--config=configs/quickstart.py]"),
        (["--config=configs/nlip.py"], ""),
        (["--config", "configs/nlip.py"], ""),
    ],
)
def test_local_trains_quickstart_unless_a_config_is_given(machine, args, added):
    machine.python()
    given = "".join(f"[{arg}]" for arg in args)
    assert machine.launch("local.sh", *args) == f"[-m][nlip_jax][train]{added}{given}"


def test_second_launch_installs_nothing(machine):
    machine.python()
    assert machine.launch("test.sh", "-x", "tests/a b.py") == "[-m][pytest][-x][tests/a b.py]"
    assert machine.called("-m pip install") == 1
    whole = "[-m][pytest][--numprocesses=2][--dist=loadfile]"
    assert machine.run("test.sh") == (0, whole, "")
    assert (machine.called("-m pip"), machine.called("-c")) == (0, 1)
    machine.launch("local.sh")  # needs no extra, so what the tests need is enough
    assert machine.called("-m pip") == 0
    machine.launch("local.sh", NLIP_JAX_EXTRAS="cuda,eval")
    assert machine.called("-m pip install") == 1
    assert machine.calls.read_text().count("--editable .[cuda,eval]\n") == 1


def test_changed_requirements_are_installed_into_the_same_environment(machine):
    machine.python()
    machine.launch("local.sh")
    with (machine.checkout / "setup.cfg").open("a") as file:
        file.write("# changed\n")
    machine.launch("local.sh")
    assert (machine.called("-m pip install"), machine.called("-m venv")) == (1, 0)


def test_another_python_remakes_the_environment(machine):
    machine.python()
    machine.python("python3.12", prelude="sys.version_info = (3, 12, 99)")
    machine.launch("local.sh")
    machine.launch("local.sh", PYTHON="python3.12")
    assert machine.called("-m venv") == 1
    machine.launch("local.sh")  # whichever it was made with is fine when none is asked for
    machine.launch("local.sh", PYTHON="python3.12")
    assert machine.called("-m venv") == 0


def test_killed_setup_is_redone(machine):
    machine.python()
    machine.launch("local.sh")
    (machine.venv / ".setup/unfinished").touch()
    (machine.venv / "half a package").touch()
    machine.launch("local.sh")
    assert (machine.called("-m venv"), machine.called("-m pip")) == (1, 1)
    assert not (machine.venv / "half a package").exists()
    (machine.venv / "bin/python").unlink()
    machine.launch("local.sh")
    assert (machine.called("-m venv"), machine.called("-m pip")) == (1, 1)


def test_activated_environment_is_not_remade_from_itself(machine):
    machine.python()
    machine.launch("local.sh")
    shutil.copy(machine.venv / "bin/python", machine.venv / "bin/python3")
    (machine.venv / ".setup/unfinished").touch()
    machine.launch("local.sh", PATH=f"{machine.venv}/bin:{machine.bin}:/usr/bin:/bin")
    assert machine.called("-m venv") == 1


def test_concurrent_launches_set_up_once(machine):
    machine.python()
    (machine.venv / ".setup").mkdir(parents=True)
    with (machine.venv / ".setup/lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        launches = [machine.start("local.sh") for _ in range(2)]
        for launch in launches:
            assert launch.stderr.readline().startswith("waiting for another set-up")
    for launch in launches:
        assert launch.communicate(timeout=60)[0].startswith("[-m][nlip_jax]")
    assert (machine.called("-m venv"), machine.called("-m pip")) == (1, 1)


def test_signals_reach_the_launched_program_and_it_keeps_no_lock(machine):
    machine.python()
    process = machine.start("local.sh")
    process.communicate(timeout=60)
    assert (machine.folder / "launched").read_text() == f"{process.pid} free\n"


def test_failing_shims_are_passed_over(machine):
    machine.python("python3", prelude="sys.version_info = (3, 9, 2)")
    machine.python("python3.11")
    machine.launch("local.sh")
    assert machine.called("-m venv") == 1


def test_no_python_names_what_was_tried(machine):
    machine.python("python3", prelude="sys.version_info = (3, 8, 18)")
    bare = "sys.version_info = (3, 12, 1); sys.modules['ensurepip'] = None"
    machine.python("python3.12", prelude=bare)
    message = machine.refuse()
    assert "needs Python 3.11 or newer" in message
    assert "python3 is Python 3.8.18, python3.13 does not run" in message
    assert "python3.12 is Python 3.12.1 without ensurepip" in message
    assert "apt install python3.12-venv" in message
    assert not machine.venv.exists()


def test_asked_python_is_the_only_one_tried(machine):
    machine.python()
    assert "but /no/python does not run;" in machine.refuse(PYTHON="/no/python")
    machine.launch("local.sh")
    machine.python("old", prelude="sys.version_info = (2, 7, 18)")
    assert "but old is Python 2.7.18;" in machine.refuse("test.sh", PYTHON="old")


@pytest.mark.parametrize("free_kb", [0, 2_000_000])
def test_full_disk_is_seen_before_anything_is_installed(machine, free_kb):
    machine.python()
    machine.command("df", f"echo Header; echo '/dev/my disk 9000000 100 {free_kb} 99% /mnt/a disk'")
    assert f"has {free_kb // 1024} MB free, but needs 3000" in machine.refuse()
    assert (machine.called("-m venv"), machine.called("-m pip")) == (0, 0)
    (machine.bin / "df").unlink()
    machine.launch("local.sh")


def test_disk_that_fills_up_meanwhile(machine):
    machine.python()
    machine.pip(DISK_FULL, returns=1)
    assert "the disk is full: make room where" in machine.refuse()
    machine.pip()
    machine.launch("local.sh")  # what pip left is not trusted
    assert machine.called("-m venv") == 1


def test_missing_network_keeps_the_environment(machine):
    machine.python()
    machine.pip(NO_NETWORK + NOTHING_FOUND, returns=1)
    message = machine.refuse()
    log = machine.venv / "setup.log"
    assert "pip cannot reach its package index" in message
    assert "PIP_INDEX_URL" in message
    assert f"(details: {log})" in message
    assert "Temporary failure" in log.read_text()
    machine.pip()
    machine.launch("local.sh")
    assert (machine.called("-m venv"), machine.called("-m pip")) == (0, 1)


def test_other_failures_of_pip_are_quoted(machine):
    machine.python()
    machine.pip(NO_NETWORK + CONFLICT, returns=1)
    assert f"pip failed: {CONFLICT.strip()} (details: " in machine.refuse()


def test_unknown_extra_lists_the_known_ones(machine):
    machine.python()
    message = machine.refuse(NLIP_JAX_EXTRAS="cuda cudaa")
    known = "tpu cuda plan remote interop eval test notebooks"
    assert message.endswith(f"no extra named cudaa; it has: {known}")
    assert not machine.venv.exists()


def test_folders_of_others_are_left_alone(machine):
    machine.python()
    photos = machine.folder / "photos"
    photos.mkdir()
    (photos / "cat.jpg").touch()
    assert "is no virtual environment" in machine.refuse(NLIP_JAX_VENV=str(photos))
    assert [path.name for path in photos.iterdir()] == ["cat.jpg"]

    (machine.venv / "bin").mkdir(parents=True)
    (machine.venv / "pyvenv.cfg").touch()  # made by hand, and broken
    assert "was not made by launch/" in machine.refuse()
    shutil.copy(machine.bin / "python3", machine.venv / "bin/python")
    machine.launch("local.sh")  # made by hand, and fine
    assert (machine.called("-m venv"), machine.called("-m pip")) == (0, 1)
