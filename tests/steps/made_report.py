"""A report made of fake results, and what tests ask of its page."""

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

from fake_results import make_config, make_results, write_tars

from semisup import tables
from semisup.steps.report import main

Change = Callable[[dict[str, Any]], None]


class Outcome:
    """A report made in a folder. ``make`` may be called again."""

    def __init__(self, folder: Path, num_classes: int = 3, prefix: str = "") -> None:
        self.folder = folder
        self.config = make_config(folder, [f"{prefix}class {i}" for i in range(num_classes)])
        write_tars(folder, num_classes, prefix)

    def make(self, **hits: int) -> str:
        """Make everything the report reads, then the report; returns the page."""
        self.prepare(**hits)
        return self.write()

    def prepare(self, **hits: int) -> None:
        self.settings = make_results(self.config, **hits)

    def write(self) -> str:
        page = self.folder / "report.html"
        tables = [self.folder / name for name in ("evaluations.parquet", "config.json")]
        main(self.settings, Path(self.config["results"]), page, *tables)
        return page.read_text()

    def path(self, name: str) -> Path:
        return Path(self.config["results"]) / name

    @contextmanager
    def edited(self, name: str, change: Change) -> Iterator[None]:
        """A JSON file with a change, for a while."""
        path = self.path(name)
        before = path.read_bytes()
        value = tables.read_json(path)
        change(value)
        tables.write_json(path, value)
        try:
            yield
        finally:
            path.write_bytes(before)


def text_of(page: str) -> str:
    """The words of a page, without its markup."""
    page = re.sub(r"<(style|svg).*?</\1>", "", page, flags=re.DOTALL)
    return re.sub(r"\s+", " ", re.sub(r"<[^>]*>", " ", page))


class Elements(HTMLParser):
    """Names and attributes of the elements of a page, and those left open at its end."""

    VOID = {"meta", "img", "br"}

    def __init__(self, page: str) -> None:
        super().__init__()
        self.names: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.open: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.names.append(tag)
        self.attributes += attrs
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.attributes += attrs

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag
