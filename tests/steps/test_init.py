import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import semisup.steps
from semisup.settings import Settings
from semisup.steps import status_of
from semisup.tables import DataError

WORKFLOW = Path(semisup.steps.__file__).parents[2]
MODULES = sorted(path.stem for path in Path(semisup.steps.__file__).parent.glob("[a-z]*.py"))


class Given(Settings):
    name: str
    size: float


Call = Callable[..., dict[str, object]]


@pytest.fixture
def call(monkeypatch: pytest.MonkeyPatch) -> Call:
    """Runs a step with a command line and returns what its function was called with."""

    def call(*arguments: str) -> dict[str, object]:
        received: dict[str, object] = {}

        def main(
            settings: Given,
            first_part: Path,
            inputs: list[Path],
            workers: int,
            scale: float = 0.5,
        ) -> None:
            """Make what is needed."""
            received.update(locals())

        monkeypatch.setattr(sys, "argv", ["step", *arguments])
        assert status_of(main) == 0
        del received["received"]
        return received

    return call


SETTINGS = Given(name="a 'b' $c", size=0.1).canonical()
ARGUMENTS = ["--settings", SETTINGS, "--first-part", "x/00000.parquet", "--workers", "2"]


def fail(monkeypatch: pytest.MonkeyPatch, error: Exception) -> int:
    """Runs a step that raises this, and returns its exit status."""

    def main() -> None:
        raise error

    monkeypatch.setattr(sys, "argv", ["step"])
    return status_of(main)


# --- arguments -----------------------------------------------------------------------------


def test_arguments_become_what_the_annotations_say(call: Call) -> None:
    assert call(*ARGUMENTS, "--inputs", "a", "b/c") == {
        "settings": Given(name="a 'b' $c", size=0.1),
        "first_part": Path("x/00000.parquet"),
        "inputs": [Path("a"), Path("b/c")],
        "workers": 2,
        "scale": 0.5,
    }


def test_a_list_may_be_empty(call: Call) -> None:
    assert call(*ARGUMENTS, "--inputs")["inputs"] == []


def test_a_default_may_be_replaced(call: Call) -> None:
    assert call(*ARGUMENTS, "--inputs", "--scale", "2")["scale"] == 2.0


@pytest.mark.parametrize(
    "arguments",
    [
        ARGUMENTS,  # --inputs is missing
        [*ARGUMENTS, "--inputs", "--unknown", "1"],
        [*ARGUMENTS, "--inputs", "--sc", "1"],  # abbreviated
        [*ARGUMENTS[:-1], "many", "--inputs"],
        ["--settings", "{}", *ARGUMENTS[2:], "--inputs"],
        ["--settings", "no json", *ARGUMENTS[2:], "--inputs"],
        ["--settings", SETTINGS.replace("size", "sise"), *ARGUMENTS[2:], "--inputs"],
    ],
)
def test_a_command_line_that_does_not_fit_is_refused(
    call: Call, arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as caught:
        call(*arguments)
    assert caught.value.code == 2
    assert "usage: step" in capsys.readouterr().err


def test_help_says_what_the_step_does(call: Call, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        call("--help")
    assert caught.value.code == 0
    shown = capsys.readouterr().out
    assert "Make what is needed." in shown
    assert "--first-part" in shown


@given(st.text(st.characters(codec="utf-8", exclude_characters="\0")), st.floats(-1e9, 1e9))
def test_settings_with_any_text_arrive_as_they_were(name: str, size: float) -> None:
    received = []

    def main(settings: Given) -> None:
        received.append(settings)

    made = Given(name=name, size=size)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["step", "--settings", made.canonical()])
        assert status_of(main) == 0
    assert received == [made]


# --- failures ------------------------------------------------------------------------------


def test_a_data_error_is_one_message_and_exit_status_1(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert fail(monkeypatch, DataError("a.tar: cannot be read. Restore it.")) == 1
    assert capsys.readouterr().err == "error: a.tar: cannot be read. Restore it.\n"


@pytest.mark.parametrize("error", [ValueError("x"), OSError("x"), KeyError("x"), AssertionError()])
def test_any_other_error_is_a_bug_and_keeps_its_traceback(
    monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    with pytest.raises(type(error)) as caught:
        fail(monkeypatch, error)
    assert caught.value is error


def step(module: str, *arguments: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """Runs a step as the rules do."""
    return subprocess.run(
        [sys.executable, "-m", f"semisup.steps.{module}", *arguments],
        capture_output=True,
        text=True,
        cwd=folder,
        env={"PYTHONPATH": str(WORKFLOW)},
    )


def test_a_step_with_bad_data_exits_1_with_one_line_and_leaves_nothing(tmp_path: Path) -> None:
    settings = {"dataset": "d", "part": 0, "first_shard": 0, "shards": ["none.tar"],
                "num_classes": None, "max_pixels": 9, "stamp": ""}  # fmt: skip
    done = step(
        "index_shards",
        *("--settings", json.dumps(settings)),
        *("--manifest", "manifest.json"),
        *("--samples", "samples.parquet"),
        folder=tmp_path,
    )
    assert done.returncode == 1
    (line,) = (done.stdout + done.stderr).splitlines()
    assert re.match(r"error: none\.tar: cannot be read \(No such file .*\)\. Restore it\.$", line)
    assert list(tmp_path.iterdir()) == []


def python(code: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        env={"PYTHONPATH": str(WORKFLOW)},
    )


def test_progress_goes_to_standard_error_with_the_time() -> None:
    done = python(
        "import logging; from semisup.steps import run; run(lambda: logging.info('half done'))"
    )
    assert done.stdout == ""
    assert re.fullmatch(r"\d\d:\d\d:\d\d half done\n", done.stderr)


def test_a_step_that_ends_at_once_has_printed_all_and_done_what_was_left_for_its_end() -> None:
    done = python(
        "import atexit; from semisup.steps import run; atexit.register(print, 'the end');"
        "run(lambda: print('half done', end=', '))"
    )
    assert (done.stdout, done.returncode) == ("half done, the end\n", 0)


# --- every step ----------------------------------------------------------------------------


COMMANDS = re.findall(
    r'"(?:python -m semisup\.steps\.| (?=train"))(\w+)"\n((?:\s+".*"\n)+)',
    "".join(path.read_text() for path in sorted((WORKFLOW / "rules").glob("*.smk"))),
)


def test_there_is_a_rule_for_every_step() -> None:
    of_people = {"check_node"}  # make doctor
    assert {module for module, _ in COMMANDS} == set(MODULES) - of_people


@pytest.mark.parametrize(("module", "command"), COMMANDS, ids=[module for module, _ in COMMANDS])
def test_a_rule_gives_its_step_the_arguments_it_takes(module: str, command: str) -> None:
    source = (WORKFLOW / "semisup" / "steps" / f"{module}.py").read_text()
    signature = re.search(r"^def main\((.*?)\) -> None:", source, re.S | re.M)
    assert signature
    arguments = re.findall(r'" --([a-z-]+)[ =]', command)
    assert {name.replace("-", "_") for name in arguments} == set(
        re.findall(r"(\w+): ", signature[1])
    )
