import importlib.util
import json
import re
import subprocess
import sys
from types import ModuleType
from typing import Any

import jsonschema
import pytest
import torchvision
import yaml
from pydantic import BaseModel

from semisup import config, site
from semisup.checks import load_config, read_presets
from semisup.network_checks import read_architectures
from small import ROOT, read_config


def load_generator() -> ModuleType:
    spec = importlib.util.spec_from_file_location("generate", ROOT / "docs" / "generate.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


GENERATOR = load_generator()
RENDERED: dict[str, str] = GENERATOR.render()


@pytest.mark.parametrize("path", RENDERED)
def test_a_generated_file_is_what_the_code_says(path: str) -> None:
    assert (ROOT / path).read_text() == RENDERED[path], "out of date: run `make docs`"


def test_every_section_of_the_configuration_is_documented() -> None:
    own = {
        kind for part in (config, site) for kind in vars(part).values() if isinstance(kind, type)
    }
    sections = {kind for kind in own if issubclass(kind, config.Section)} - {config.Section}
    assert set(GENERATOR.SECTIONS) == sections


@pytest.mark.parametrize("section", GENERATOR.SECTIONS, ids=lambda section: section.__name__)
def test_every_key_has_a_row_in_the_reference(section: type[BaseModel]) -> None:
    page = RENDERED["docs/config.md"]
    title = "The whole" if section is config.Config else section.__name__
    (table,) = re.findall(rf"^## {title}\n(.*?)(?=^## )", page, re.S | re.M)
    assert re.findall(r"^\| `(\w+)` \|", table, re.M) == list(section.model_fields)


def test_links_in_the_reference_lead_to_its_sections() -> None:
    page = RENDERED["docs/config.md"]
    titles = {title.lower() for title in re.findall(r"^## (.*)$", page, re.M)}
    links = re.findall(r"\]\(#([\w-]+)\)", page)
    assert links
    assert set(links) <= titles


def test_rows_of_the_reference_are_not_broken_by_their_text() -> None:
    rows = [line for line in RENDERED["docs/config.md"].splitlines() if line.startswith("| `")]
    assert all(row.count("|") == 5 for row in rows)


def test_the_reference_names_every_preset_with_its_values() -> None:
    page = RENDERED["docs/config.md"]
    shown = yaml.safe_load(page.split("```yaml")[1].split("```")[0])
    assert shown == read_presets()


def test_a_preset_is_a_whole_recipe() -> None:
    raw = {**read_config(), "recipes": {**read_config()["recipes"], **read_presets()}}
    assert set(read_presets()) <= set(load_config(raw).recipes)


def with_on(value: Any) -> Any:
    """What an editor sees: its YAML does not read the key ``on`` as true."""
    if isinstance(value, dict):
        return {"on" if key is True else key: with_on(item) for key, item in value.items()}
    return value


@pytest.mark.parametrize("path", ["config.yaml", "examples/cifar10.yaml", "tests/tiny.yaml"])
def test_the_schema_for_editors_accepts_what_we_accept(path: str) -> None:
    raw = with_on(yaml.safe_load((ROOT / path).read_text()))
    jsonschema.validate(raw, json.loads(RENDERED["docs/config.schema.json"]))


@pytest.mark.parametrize(
    "changes", [{"sed": 1}, {"seed": "0"}, {"datasets": {}}, {"evaluate": {"on": "test"}}]
)
def test_the_schema_for_editors_refuses_wrong_keys_and_types(changes: dict[str, Any]) -> None:
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(
            with_on({**read_config(), **changes}), json.loads(RENDERED["docs/config.schema.json"])
        )


def test_the_demo_names_its_schema() -> None:
    first = (ROOT / "config.yaml").read_text().splitlines()[0]
    path = first.removeprefix("# yaml-language-server: $schema=")
    assert (ROOT / path).is_file()


def test_architectures_are_torchvisions_classifiers() -> None:
    known = read_architectures()
    assert "IMAGENET1K_V2" in known["resnet50"]
    assert all(torchvision.models.get_model_builder(name) for name in known)


def test_the_conda_environment_pins_what_the_requirements_pin() -> None:
    environment = yaml.safe_load(RENDERED["envs/semisup.yaml"])
    (pip,) = [item["pip"] for item in environment["dependencies"] if isinstance(item, dict)]
    requirements = (ROOT / "requirements.txt").read_text()
    assert pip
    assert all(re.search(rf"^{re.escape(pin)}\b", requirements, re.M) for pin in pip)


def test_the_cost_of_the_papers_scale_is_what_is_computed():
    done = subprocess.run(
        [sys.executable, ROOT / "benchmarks" / "scale.py"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout in (ROOT / "docs" / "scale.md").read_text()
