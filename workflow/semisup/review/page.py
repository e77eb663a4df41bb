"""Renders the page: pairs as data, which a script shows; text of theirs never becomes markup."""

import base64
import hashlib
import json
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup

FOLDER = Path(__file__).parent


def render(
    title: str, pairs: list[dict[str, Any]], pictures: list[str], problems: list[str]
) -> str:
    """One page without any reference to the outside.

    ``pairs``: what the script shows, closest first; ``pictures``: data URIs, which pairs name by
    position; ``problems``: why a picture is empty. Decisions are kept in the browser for these pairs.
    """
    columns = [name for name in pairs[0] if name != "pictures"] if pairs else []
    shown = json.dumps(pairs, ensure_ascii=True)
    data = {
        "title": title,
        "digest": hashlib.sha256(shown.encode()).hexdigest()[:16],
        "columns": columns,
        "rows": [[pair[name] for name in columns] for pair in pairs],
        "shows": [pair["pictures"] for pair in pairs],
        "pictures": pictures,
        "problems": problems,
    }
    script = (FOLDER / "page.js").read_text(encoding="utf-8")
    # A browser that is asked to runs this script and no other.
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(FOLDER), autoescape=True, undefined=jinja2.StrictUndefined
    )
    return environment.get_template("page.html.j2").render(
        title=title,
        style=Markup((FOLDER / "page.css").read_text(encoding="utf-8")),
        script=Markup(script),
        script_digest=digest,
        data=Markup(escape_json(data)),
    )


def escape_json(value: Any) -> str:
    """JSON that may stand in an element of a page: nothing in it can end the element."""
    text = json.dumps(value, ensure_ascii=True, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")
