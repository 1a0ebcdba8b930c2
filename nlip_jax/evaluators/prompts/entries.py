"""Reads class names and templates: the files shipped beside this one, or a user's own."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nlip_jax.errors import UsageError

SLOT = "{}"
METRICS = ("top1", "top5", "mean_per_class")
_FOLDER = Path(__file__).parent
_LISTS = ("folders", "optional", "templates", "filip_templates")


@dataclass(frozen=True, kw_only=True)
class Prompts:
    """How prompts name the classes of a set.

    Attributes:
      name: of the shipped file, or the path of another.
      class_names: in the order in which the set was published.
      folders: of every class, what data sets call it; empty where that is its name alone.
      optional: classes that some editions of the set lack.
      templates: with `{}` for the name of the class.
      filip_templates: likewise; empty where FILIP published none.
      metric: by which the set is reported, one of `METRICS`.
    """

    name: str
    class_names: tuple[str, ...]
    folders: tuple[str, ...]
    optional: frozenset[str]
    templates: tuple[str, ...]
    filip_templates: tuple[str, ...]
    metric: str


def shipped() -> tuple[str, ...]:
    """Names of the shipped files."""
    return tuple(sorted(path.stem for path in _FOLDER.glob("*.json")))


def read_prompts(name: str) -> Prompts:
    """Reads class names and templates.

    Args:
      name: one of `shipped()`, or the path of a JSON file: an object with "classnames" and, all
        optional, "folders" (parallel to them), "templates" ("{}" or "{c}" for the name),
        "filip_templates", "optional" and "metric".

    Raises:
      UsageError: there is no such file, or something in it cannot be used.
    """
    is_file = name.endswith(".json")
    if not is_file and name not in shipped():
        raise UsageError(
            f"prompts={name!r}: choose one of {', '.join(shipped())}, or name a .json file"
        )
    path = Path(name).expanduser() if is_file else _FOLDER / f"{name}.json"
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        raise UsageError(
            f"prompts={name!r} cannot be read ({getattr(error, 'strerror', None) or error})"
        ) from error
    return parse_prompts(text, name)


def parse_prompts(text: str, name: str) -> Prompts:
    """Class names and templates from the text of such a file.

    Raises:
      UsageError: something in it cannot be used.
    """
    try:
        document = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise UsageError(f"prompts={name!r} is no JSON ({error})") from error
    return _to_prompts(document, name)


def check_templates(templates: Sequence[str]) -> tuple[str, ...]:
    """Templates with `{}` where the name goes, `{c}` and `{}` both being understood.

    Raises:
      UsageError: one has no place for the name.
    """
    for template in templates:
        if SLOT not in template and "{c}" not in template:
            raise UsageError(
                f"template {template!r} needs {{}} or {{c}} where the name of the class goes"
            )
    return tuple(template.replace("{c}", SLOT) for template in templates)


def _to_prompts(document: Any, name: str) -> Prompts:
    if not isinstance(document, dict) or not document.get("classnames"):
        raise UsageError(f'prompts={name!r} has no "classnames", a list of names')
    lists = {field: document.get(field) or [] for field in _LISTS}
    lists["classnames"] = document["classnames"]
    for field, texts in lists.items():
        if not isinstance(texts, list) or not all(isinstance(t, str) and t.strip() for t in texts):
            raise UsageError(f'prompts={name!r}: "{field}" must be a list of texts, none blank')
    class_names, folders = lists["classnames"], lists["folders"]
    if folders and len(folders) != len(class_names):
        raise UsageError(
            f'prompts={name!r}: {len(folders)} "folders" and {len(class_names)} "classnames", two '
            "lists of the same length are needed"
        )
    metric = document.get("metric", METRICS[0])
    if metric not in METRICS:
        raise UsageError(
            f"prompts={name!r}: metric={metric!r}: choose one of {', '.join(METRICS)}"
        )
    try:
        templates = {f: check_templates(lists[f]) for f in ("templates", "filip_templates")}
    except UsageError as error:
        raise UsageError(f"prompts={name!r}: {error}") from error
    return Prompts(
        name=name,
        class_names=tuple(class_names),
        folders=tuple(folders),
        optional=frozenset(lists["optional"]),
        metric=metric,
        **templates,
    )
