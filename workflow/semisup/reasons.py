"""Why a job runs again, in few words: Snakemake shows the settings before and now, both whole; here
it is the keys that changed, from what to what."""

import ast
import itertools
import json
import logging
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

QUOTED = r"""('(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*")"""
CHANGED = re.compile(rf"Union of exclusive params .*?: before: {QUOTED} now: {QUOTED} ?")
MAX_LENGTH = 60
ABSENT = object()


class ExplainChanges(logging.Filter):
    """Rewrites the reasons Snakemake logs."""

    def filter(self, record: logging.LogRecord) -> bool:
        if isinstance(reason := getattr(record, "reason", None), str):
            record.reason = explain(reason)
        return True


def explain(reason: str) -> str:
    """The reason with each changed setting as ``key: before → now``."""
    return CHANGED.sub(lambda found: _describe(*found.groups()) or found[0], reason)


def changes_since(path: Path, config: dict[str, Any]) -> list[str]:
    """What differs from the configuration that a report was last made with, if one was."""
    try:
        before = json.loads(path.read_text())
    except (OSError, ValueError):
        return []
    return _in_words(before, config)


def _describe(before: str, now: str) -> str:
    try:
        settings = [json.loads(ast.literal_eval(text)) for text in (before, now)]
    except (ValueError, SyntaxError):  # no settings of ours
        return ""
    return ", ".join(_in_words(*settings))


def _in_words(before: Any, now: Any) -> list[str]:
    changes = _changes(before, now)
    return [f"{key}: {_show(old)} → {_show(new)}" for key, old, new in changes]


def _changes(before: Any, now: Any, key: str = "") -> Iterator[tuple[str, Any, Any]]:
    """Each dotted key whose value differs, with both values; of long lists the first that differs."""
    if isinstance(before, dict) and isinstance(now, dict):
        for name in sorted(before.keys() | now.keys()):
            below = f"{key}.{name}" if key else name
            yield from _changes(before.get(name, ABSENT), now.get(name, ABSENT), below)
    elif before != now and _is_long(before) and _is_long(now):
        if len(before) != len(now):
            yield f"len({key})", len(before), len(now)
        places = (
            i for i, (one, other) in enumerate(zip(before, now, strict=False)) if one != other
        )
        for place in itertools.islice(places, 1):
            yield f"{key}[{place}]", before[place], now[place]
    elif before != now:
        yield key, before, now


def _show(value: Any) -> str:
    if value is ABSENT:
        return "absent"
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= MAX_LENGTH else f"{text[: MAX_LENGTH - 3]}..."


def _is_long(value: Any) -> bool:
    return isinstance(value, list) and len(_show(value)) == MAX_LENGTH
