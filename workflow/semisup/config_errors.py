"""What is wrong with a configuration, in one line: the key, the value, the remedy."""

import difflib
import re
from collections import defaultdict
from collections.abc import Collection, Iterator
from itertools import groupby
from pathlib import Path
from typing import Any, get_args, get_origin

import yaml
from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from semisup.config import Config
from semisup.wording import name_first

WANTED = {
    "int_type": "a whole number",
    "float_type": "a number",
    "bool_type": "true or false",
    "string_type": "text",
    "list_type": "a list",
    "dict_type": "a section of names",
    "model_type": "a section of keys",
    "string_pattern_mismatch": "a letter, then letters, digits, _ and -",
}
"""What was expected, by the type of pydantic's error."""

MAX_NAMED = 30

MERGE = "tag:yaml.org,2002:merge"
"""Of the key ``<<``, which may stand several times, each for the keys of another mapping."""

POWER = r"([-+]?\d+)(\.\d*)?[eE]([-+]?)(\d+)"
"""A number such as 1e-3, which YAML 1.1 reads as text."""


class ConfigError(Exception):
    """Everything found wrong with a configuration, one line each."""


def refuse_repeated_keys(path: Path) -> None:
    """Raises ConfigError where a YAML file has a key twice, of which YAML's reader takes the last."""
    try:
        root = yaml.compose(path.read_text("utf-8"), yaml.SafeLoader)
    except yaml.YAMLError:  # whoever reads its values says so, or it is JSON with tabs
        return
    repeated = [
        f"  {key}: stands {len(lines)} times in {path}, in lines {', '.join(map(str, lines))}; "
        "keep one, or rename them."
        for key, lines in _key_lines(root, "", set())
        if len(lines) > 1
    ]
    if repeated:
        raise ConfigError("\n".join(repeated))


def _key_lines(
    node: yaml.Node | None, prefix: str, seen: set[int]
) -> Iterator[tuple[str, list[int]]]:
    """Each key of each mapping with the lines it stands in. Aliases may hold what holds them."""
    if node is None or id(node) in seen:
        return
    seen.add(id(node))
    if isinstance(node, yaml.SequenceNode):
        for item in node.value:
            yield from _key_lines(item, prefix, seen)
    elif isinstance(node, yaml.MappingNode):
        lines = defaultdict(list)
        named = [(key, value) for key, value in node.value if isinstance(key, yaml.ScalarNode)]
        for key, _ in named:
            if key.tag != MERGE:
                lines[f"{prefix}{key.value}"].append(key.start_mark.line + 1)
        yield from lines.items()
        for key, value in named:
            yield from _key_lines(value, f"{prefix}{key.value}.", seen)


def problem(key: str, value: object, what: str, remedy: str) -> str:
    return f"{key}: {show(value)} {what}; {remedy}."


def unknown(key: str, name: object, known: Collection[str]) -> str:
    """The problem of a name that nothing has."""
    there_are = f"there are: {name_first(known, MAX_NAMED)}" if known else "there are none"
    return problem(key, name, "does not exist", f"{nearest(name, known)}{there_are}")


def show(value: object) -> str:
    """A value much as YAML writes it, on one line of no great length."""
    if value is None or isinstance(value, bool):
        return {None: "nothing", True: "true", False: "false"}[value]
    try:
        text = repr(value)
    except ValueError:  # Python does not print a number of more than 4,300 digits
        return "this"
    return text if len(text) <= 200 else f"{text[:197]}..."


def nearest(name: object, known: Collection[str]) -> str:
    """The known name that may have been meant, as a question; nothing when none is like it."""
    lower = {other.lower(): other for other in known}
    found = difflib.get_close_matches(show(name).strip("'").lower(), lower, n=1, cutoff=0.6)
    return f"did you mean {lower[found[0]]}? " if found else ""


def explain(error: ValidationError, whole: type[BaseModel] = Config) -> list[str]:
    """A line for each key that pydantic refused in ``whole``."""
    lines = []
    for _, group in groupby(error.errors(), key=lambda item: _find(item, whole)[0]):
        items = list(group)
        depth = max(len(item["loc"]) for item in items)
        # Each branch of a union has its say; the ones that got furthest are meant.
        furthest = [item for item in items if len(item["loc"]) == depth]
        lines.append(_explain(furthest, *_find(furthest[0], whole)))
    return lines


def _explain(items: list[ErrorDetails], path: list[str], section: type[BaseModel]) -> str:
    kind, value = items[0]["type"], items[0]["input"]
    key = ".".join(path) or "config"
    if kind == "extra_forbidden":
        known = section.model_fields
        return f"{key}: unknown key; {nearest(path[-1], known)}known here: {', '.join(known)}."
    if kind == "missing":
        return f"{key}: missing; add it (see docs/config.md)."
    if kind == "value_error":
        return f"{key}: {items[0]['ctx']['error']}."
    if kind in WANTED:
        wanted = dict.fromkeys(WANTED[item["type"]] for item in items if item["type"] in WANTED)
        return problem(key, value, f"must be {' or '.join(wanted)}", _remedy(value, *wanted))
    message = re.sub("^(Input|List|Dictionary|String) should", "must", items[0]["msg"])
    return problem(key, value, message.replace(" after validation", ""), "see docs/config.md")


def _find(error: ErrorDetails, whole: type[BaseModel]) -> tuple[list[str], type[BaseModel]]:
    """The keys people wrote, of what pydantic names, and the section that holds the last one.

    What follows them is a position in a list, the branch of a union, or ``[key]``.
    """
    path: list[str] = []
    holder: type[BaseModel] = whole
    section: Any = whole
    for step in error["loc"]:
        if step == "[key]" and error["type"] != "extra_forbidden":
            break
        if isinstance(section, type) and issubclass(section, BaseModel):
            holder = section
            field = section.model_fields.get(str(step))
            section = _unwrap(field.annotation) if field else None
        elif get_origin(section) is dict:
            section = get_args(section)[1]
        else:
            break
        path.append(str(step))
    return path, holder


def _unwrap(annotation: Any) -> Any:
    """The section in an optional section."""
    sections = [o for o in get_args(annotation) if isinstance(o, type) and issubclass(o, BaseModel)]
    return sections[0] if sections and get_origin(annotation) is not dict else annotation


def _remedy(value: object, *wanted: str) -> str:
    text = value if isinstance(value, str) else ""
    if "a whole number" in wanted and (isinstance(value, float) or re.fullmatch(POWER, text)):
        return "write it in full, as 1_000_000"
    if "a number" in wanted and (power := re.fullmatch(POWER, text)):
        digits, fraction, sign, exponent = power.groups()
        right = f"{digits}{fraction or '.0'}e{sign or '+'}{exponent}"
        return f"YAML reads {text} as text: write {right}"
    if wanted[0] in ("a number", "a whole number") and re.fullmatch(r"[-+]?\d+(\.\d*)?", text):
        return "remove the quotes"
    if "text" in wanted and isinstance(value, int | float):
        return "put it in quotes"
    return "see docs/config.md"
