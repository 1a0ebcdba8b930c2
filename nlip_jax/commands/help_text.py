"""`--help`: the flags of a command, and every config field with its default and comment."""

import ast
from pathlib import Path

from nlip_jax.commands.table import Command
from nlip_jax.errors import UsageError

_NO_VALUE = "no value: "  # begins the help of a flag that takes none

# Functions of configs/base.py and configs/evaluators.py -> where their fields stand in a config.
_BLOCKS = {
    "synthetic_source": "data.synthetic.",
    "indexed_source": "data.{tar|array_record|parquet|table|folder|labelled|...}.",
    "tar_source": "data.tar.",
    "array_record_source": "data.array_record.",
    "parquet_source": "data.parquet.",
    "table_source": "data.table.",
    "folder_source": "data.folder.",
    "lines_source": "data.lines.",
    "labelled_source": "data.labelled.",
    "labelled_folder_source": "data.labelled_folder.",
    "tfds_source": "data.tfds.",
    "labelled_set": "evaluators.KIND.SET.",
    "zip_set": "evaluators.KIND.SET.zip.",
    "image_folder_set": "evaluators.KIND.SET.image_folder.",
    "webdataset_set": "evaluators.KIND.SET.webdataset.",
    "tfds_set": "evaluators.KIND.SET.tfds.",
    "class_scenes": "evaluators.KIND.SET.class_scenes.",
    "zero_shot": "evaluators.zero_shot.SET.",
    "retrieval": "evaluators.retrieval.SET.",
    "geometry": "evaluators.geometry.SET.",
    "caption": "evaluators.caption.SET.",
    "judgement": "evaluators.judgement.SET.",
    "pair_choice": "evaluators.pair_choice.SET.",
    "linear_probe": "evaluators.linear_probe.SET.",
    "few_shot": "evaluators.few_shot.SET.",
    "knn": "evaluators.knn.SET.",
    "clustering": "evaluators.clustering.SET.",
    "get_config": "",
}


def describe(name: str, command: Command) -> str:
    """The help page of a command."""
    usage = f"usage: python -m nlip_jax {name}"
    usage += f" {'|'.join(command.choices)}" if command.choices else ""
    usage += " --config=FILE[:ARGUMENT] [--config.FIELD=VALUE ...]" if command.takes_config else ""
    lines = [usage + " [--FLAG=VALUE ...]", "", command.summary, ""]
    if command.usages:
        lines[0] = "\n".join(
            f"{'usage:' if i == 0 else '      '} python -m nlip_jax {name} {text}"
            for i, text in enumerate(command.usages)
        )
    lines += [_describe_flag(flag, text) for flag, text in command.flags.items()]
    lines += ["", *command.notes, ""] if command.notes else []
    if command.takes_config:
        lines += ["  --config=FILE[:ARGUMENT]  the experiment, such as configs/quickstart.py", ""]
        lines += ["config fields, with the defaults of configs/base.py:", *config_fields()]
    return "\n".join(lines)


def _describe_flag(flag: str, text: str) -> str:
    has_value = not text.startswith(_NO_VALUE)
    return f"  --{flag}{'=VALUE' if has_value else ''}  {text.removeprefix(_NO_VALUE)}"


def config_fields() -> list[str]:
    """A line for each field of configs/base.py and configs/evaluators.py, from their source."""
    configs = Path(__file__).resolve().parents[2] / "configs"
    return [line for name in ("base.py", "evaluators.py") for line in _fields_of(configs / name)]


def _fields_of(path: Path) -> list[str]:
    if not path.exists():
        raise UsageError(f"{path} is missing: run from a checkout of the repository")
    text = path.read_text()
    source, lines = text.splitlines(), []
    for function in ast.parse(text).body:
        for node in ast.walk(function) if isinstance(function, ast.FunctionDef) else ():
            name = _field_name(node)
            value = ast.unparse(node.value) if name else ""
            if not name or "ConfigDict(" in value or value.endswith(("_source()", "RUNTIME")):
                continue
            if isinstance(node.value, ast.Name):  # handed in
                value = "..."
            elif node.lineno == node.end_lineno:  # as it is written: 1e-6, 65_536
                value = ast.get_source_segment(text, node.value)
            comment = _comment(source, node)
            block = _BLOCKS.get(function.name, f"evaluators.{function.name}.SET.")
            field = f"  --config.{block}{name}={value}"
            lines.append(f"{field}  # {comment}" if comment else field)
    return lines


def _field_name(node: ast.AST) -> str:
    """Dotted name of the field of `c` that a statement sets; empty for any other."""
    if not (isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Attribute)):
        return ""
    root, _, name = ast.unparse(node.targets[0]).partition(".")
    return name if root == "c" else ""


def _comment(source: list[str], node: ast.Assign) -> str:
    """What is written above a field and behind it."""
    above, line = [], node.lineno - 2
    while source[line].lstrip().startswith("# ") and not source[line].lstrip().startswith("# --"):
        above.insert(0, source[line].lstrip().removeprefix("# "))
        line -= 1
    # Columns of the syntax tree count bytes.
    behind = source[node.end_lineno - 1].encode()[node.end_col_offset :].decode()
    return " ".join([*above, behind.strip().removeprefix("# ")]).strip()
