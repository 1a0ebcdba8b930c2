"""`benchmark NAME`: measure something on this machine, side by side with its alternative."""

import importlib

import jax

from nlip_jax.commands.json_file import check_json_file, write_json_file
from nlip_jax.commands.table import COMMANDS
from nlip_jax.errors import UsageError
from nlip_jax.report.table import format_results


def main(argv: list[str]) -> int:
    """Runs the command; returns the exit code."""
    command = COMMANDS["benchmark"]
    names = [argument for argument in argv if not argument.startswith("-")]
    flags = dict(a.lstrip("-").partition("=")[::2] for a in argv if a.startswith("-"))
    unknown = [flag for flag in flags if flag not in command.flags]
    if len(names) != 1 or names[0] not in command.choices or unknown:
        raise UsageError(
            f"cannot read {' '.join(argv)!r}; usage: python -m nlip_jax benchmark "
            f"{'|'.join(command.choices)} [--json=FILE]"
        )
    if "json" in flags and not flags["json"]:
        raise UsageError("--json needs a file: --json=FILE")
    json_file = check_json_file(flags.get("json", ""))
    numbers = importlib.import_module(f"nlip_jax.commands.benchmarks.{names[0]}").run()
    kind = jax.devices()[0].device_kind
    print(f"on {jax.device_count()} {kind} device(s), jax {jax.__version__}")
    print(format_results(numbers))
    if json_file is not None:
        write_json_file(json_file, numbers)
    return 0
