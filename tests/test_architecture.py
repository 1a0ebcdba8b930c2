"""Who may import whom: reads every import, those inside functions too, and imports nothing."""

import ast
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]

# From the ground up. A part of nlip_jax/, a package or a module, may import itself and the layers
# below its own.
LAYERS = (
    {"errors"},
    {"files", "outcome", "phases", "types"},
    {"sharding"},
    {"placement"},
    {"checkpoint", "columns", "config"},
    {"data", "estimators", "losses", "models"},
    {"methods"},
    {"tasks"},
    {"evaluators", "interop", "report", "train"},
    {"build"},
    {"plan"},
    {"commands"},
    {"__main__"},
)
LEVELS = {part: level for level, parts in enumerate(LAYERS) for part in parts}

# A dependency, and the only places that may import it.
DOORS = {
    "flax.linen": ("nlip_jax/models/",),
    "grain": ("nlip_jax/data/",),
    "orbax": ("nlip_jax/checkpoint.py",),
    "optax": ("nlip_jax/train/", "nlip_jax/evaluators/linear_probe.py"),
}

# Read by processes that must start fast, or by people without an accelerator's software.
WITHOUT_JAX = (
    "nlip_jax/__init__.py",
    "nlip_jax/errors.py",
    "nlip_jax/data/",
    "nlip_jax/report/",
    "configs/",
)
JAX = ("jax", "jaxlib", "flax", "optax", "orbax")


@dataclass(frozen=True)
class Import:
    """`target` is dotted and, for `from a import b`, ends in b, whether that is a module or not."""

    file: str
    line: int
    target: str
    on_import: bool  # runs when the file is imported, rather than when a function is called

    def breaks(self, rule: str) -> str:
        return f"{self.file}:{self.line}: imports {self.target}: {rule}"


def is_type_checking(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)


def targets(node: ast.AST, package: list[str]) -> list[str]:
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    if isinstance(node, ast.ImportFrom):
        parents = package[: len(package) - node.level + 1] if node.level else []
        module = ".".join([*parents, *filter(None, [node.module])])
        return [f"{module}.{alias.name}" for alias in node.names]
    return []


def read_imports(root: Path) -> list[Import]:
    """Every import below nlip_jax/ and configs/, except those for type checkers only."""
    found = []

    def visit(node: ast.AST, file: Path, on_import: bool):
        for target in targets(node, list(file.parent.parts)):
            found.append(Import(file.as_posix(), node.lineno, target, on_import))
        children = node.orelse if is_type_checking(node) else ast.iter_child_nodes(node)
        is_function = isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
        for child in children:
            visit(child, file, on_import and not is_function)

    for path in sorted([*root.glob("nlip_jax/**/*.py"), *root.glob("configs/**/*.py")]):
        visit(ast.parse(path.read_text(), str(path)), path.relative_to(root), True)
    return found


def is_below(target: str, module: str) -> bool:
    return f"{target}.".startswith(f"{module}.")


def part(dotted: str) -> str | None:
    """The part of nlip_jax that a dotted name is in; None for the package's own names."""
    names = dotted.split(".")
    return names[1] if names[0] == "nlip_jax" and len(names) > 1 and names[1] in LEVELS else None


def part_of_file(file: str) -> str | None:
    return part(file.removesuffix(".py").replace("/", "."))


def unregistered(root: Path) -> list[str]:
    parts = [path for path in root.glob("nlip_jax/*") if path.is_dir() or path.suffix == ".py"]
    return [
        f"nlip_jax/{path.name}: in no layer; give it one in LAYERS of tests/test_architecture.py"
        for path in sorted(parts)
        if path.stem not in LEVELS and path.stem not in ("__init__", "__pycache__")
    ]


def upward(imports: list[Import]) -> list[str]:
    broken = []
    for item in imports:
        here, there = part_of_file(item.file), part(item.target)
        if here is None or there is None or here == there:
            continue
        if LEVELS[there] > LEVELS[here]:
            broken.append(item.breaks(f"{there} is in a layer above {here}"))
        elif LEVELS[there] == LEVELS[here]:
            broken.append(item.breaks(f"{there} and {here} are siblings"))
    return broken


def walls(imports: list[Import]) -> list[str]:
    return [
        item.breaks(f"only {', '.join(doors)} may import {module}")
        for item in imports
        for module, doors in DOORS.items()
        if is_below(item.target, module) and not item.file.startswith(doors)
    ]


def files_of(target: str, files: set[str]) -> list[str]:
    """The files that run when a target is imported: its packages' and its own."""
    names = target.split(".")
    stems = ["/".join(names[:count]) for count in range(1, len(names) + 1)]
    candidates = [f"{stem}{end}" for stem in stems for end in ("/__init__.py", ".py")]
    return [file for file in candidates if file in files]


def dependencies(imports: list[Import]) -> dict[str, dict[str, Import]]:
    """For each file, the files that importing it imports, and by which import."""
    files = {item.file for item in imports}
    graph = {file: {} for file in files}
    for item in imports:
        for file in files_of(item.target, files) if item.on_import else ():
            if file != item.file:
                graph[item.file].setdefault(file, item)
    return graph


def without_jax(imports: list[Import]) -> list[str]:
    """Direct imports anywhere in the files that must do without, and what they import on import."""
    graph = dependencies(imports)
    heavy = {}
    for item in imports:
        if any(is_below(item.target, module) for module in JAX):
            heavy.setdefault(item.file, []).append(item)
    broken = []
    for start in sorted(file for file in graph if file.startswith(WITHOUT_JAX)):
        broken += [item.breaks(f"{start} must work without jax") for item in heavy.get(start, ())]
        seen, queue = {start}, list(graph[start].items())
        while queue:
            file, via = queue.pop()
            if file in seen:
                continue
            seen.add(file)
            queue += graph[file].items()
            reasons = [item.target for item in heavy.get(file, ()) if item.on_import]
            if reasons and not file.startswith(WITHOUT_JAX):
                rule = f"{start} must work without jax, but {file} imports {reasons[0]}"
                broken.append(via.breaks(rule))
    return broken


RULES = (upward, walls, without_jax)


def test_every_part_has_a_layer():
    broken = unregistered(ROOT)
    assert not broken, "\n".join(broken)


@pytest.fixture(scope="module")
def imports() -> list[Import]:
    return read_imports(ROOT)


@pytest.mark.parametrize("rule", RULES)
def test_imports(rule, imports):
    broken = rule(imports)
    assert not broken, "\n" + "\n".join(broken)


def build_house(root: Path, files: dict[str, str]) -> list[Import]:
    for name, content in files.items():
        path = root / "nlip_jax" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
    return read_imports(root)


@pytest.mark.parametrize(
    ("rule", "file", "text", "message"),
    [
        (upward, "losses/a.py", "\nimport nlip_jax.train.b", "train is in a layer above losses"),
        (upward, "losses/a.py", "\nfrom nlip_jax import models", "models and losses are siblings"),
        (upward, "data/a.py", "def f():\n  from ..estimators import b", "are siblings"),
        (walls, "methods/a.py", "\nfrom flax import linen as nn", "only nlip_jax/models/ may"),
        (walls, "columns.py", "\nimport grain.experimental", "only nlip_jax/data/ may"),
        (walls, "methods/a.py", "\nimport orbax.checkpoint", "only nlip_jax/checkpoint.py may"),
        (walls, "evaluators/knn.py", "\nimport optax", "only nlip_jax/train/, nlip_"),
        (without_jax, "data/a.py", "def f():\n  import jax.numpy", "must work without jax"),
        (without_jax, "report/a.py", "\nimport nlip_jax.types", "types.py imports jax.Array"),
    ],
)
def test_rule_finds(tmp_path, rule, file, text, message):
    (broken,) = rule(build_house(tmp_path, {"types.py": "from jax import Array\n", file: text}))
    assert broken.startswith(f"nlip_jax/{file}:2: imports ")
    assert message in broken


def test_rules_allow(tmp_path):
    files = {
        "columns.py": "from nlip_jax import __version__, errors\n",
        "data/a.py": "import grain\nfrom nlip_jax.data import b\n",
        "errors.py": "import typing\nif typing.TYPE_CHECKING:\n  import jax\n",
        "models/vit.py": "import flax.linen as nn\nfrom nlip_jax.types import Batch\n",
        "train/step.py": "import optax\nfrom nlip_jax.methods.base import Method\n",
        "types.py": "import flax.struct\nfrom nlip_jax.errors import UsageError\n",
    }
    imports = build_house(tmp_path, files)
    assert len(imports) == 11
    assert [rule(imports) for rule in RULES] == [[], [], []]


def test_new_part_must_be_registered(tmp_path):
    build_house(tmp_path, {"__init__.py": "", "errors.py": "", "helpers.py": "", "shop/a.py": ""})
    assert [line.split(":")[0] for line in unregistered(tmp_path)] == [
        "nlip_jax/helpers.py",
        "nlip_jax/shop",
    ]
