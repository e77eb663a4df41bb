"""A real browser without a window: Chromium, spoken to through a pipe in its own protocol."""

import base64
import json
import os
import shutil
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest

NAMES = ["chromium", "chromium-browser", "google-chrome", "google-chrome-stable"]
CODES = {"ArrowDown": 40, "ArrowUp": 38, "Enter": 13}


def find_browser() -> str:
    """Path of a Chromium; skips the test where there is none."""
    path = next((found for name in NAMES if (found := shutil.which(name))), "")
    return path or pytest.skip(
        f"NO BROWSER: none of {', '.join(NAMES)} is installed, so the review page is not tested"
    )


class Browser:
    """One page of a headless Chromium, from ``file://``. Downloads go to ``folder``."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        theirs_in, self.to = os.pipe()
        self.answers, theirs_out = os.pipe()
        command = [find_browser(), "--headless=new", "--no-sandbox", "--disable-gpu"]
        command += ["--remote-debugging-pipe", f"--user-data-dir={folder / 'profile'}"]
        command += ["--window-size=1280,900", "--no-first-run", "--disable-dev-shm-usage"]
        # Chromium reads descriptor 3 and writes descriptor 4.
        wrapped = ["bash", "-c", f'exec 3<&{theirs_in} 4>&{theirs_out}; exec "$@"', "-", *command]
        self.process = subprocess.Popen(
            wrapped, pass_fds=[theirs_in, theirs_out], stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )  # fmt: skip
        os.close(theirs_in)
        os.close(theirs_out)
        self.buffer, self.number, self.session, self.events = b"", 0, "", []
        behaviour = {"behavior": "allow", "downloadPath": str(folder), "eventsEnabled": True}
        self.call("Browser.setDownloadBehavior", **behaviour)
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        attached = self.call("Target.attachToTarget", targetId=target, flatten=True)
        self.session = attached["sessionId"]
        self.call("Page.enable")
        self.call("Runtime.enable")
        self.call("Network.enable")
        self.call("Log.enable")

    def __enter__(self) -> "Browser":
        return self

    def __exit__(self, *_: object) -> None:
        self.process.terminate()
        self.process.wait(20)
        os.close(self.to)
        os.close(self.answers)

    def call(self, method: str, **params: Any) -> dict[str, Any]:
        self.number += 1
        message = {"id": self.number, "method": method, "params": params}
        if self.session:
            message["sessionId"] = self.session
        os.write(self.to, json.dumps(message).encode() + b"\0")
        while True:
            answer = self._read()
            if answer.get("id") == self.number:
                assert "error" not in answer, f"{method}: {answer['error']}"
                return answer["result"]
            self.events.append(answer)

    def _read(self) -> dict[str, Any]:
        while b"\0" not in self.buffer:
            piece = os.read(self.answers, 1 << 20)
            assert piece, "the browser has gone"
            self.buffer += piece
        message, _, self.buffer = self.buffer.partition(b"\0")
        return json.loads(message)

    def open(self, path: Path) -> None:
        self.call("Page.navigate", url=path.as_uri())
        self.wait(f"document.readyState === 'complete' && location.pathname === {str(path)!r}")

    def evaluate(self, expression: str) -> Any:
        result = self.call("Runtime.evaluate", expression=expression, returnByValue=True)
        assert "exceptionDetails" not in result, result["exceptionDetails"]
        return result["result"].get("value")

    def wait(self, expression: str, seconds: float = 30) -> None:
        until = time.monotonic() + seconds
        while not self.evaluate(expression):
            assert time.monotonic() < until, f"{expression} is not true after {seconds} s"
            time.sleep(0.02)

    def press(self, *keys: str, caps_lock: bool = False, repeats: int = 0) -> None:
        """Keys as a keyboard sends them; a capital letter is with Shift, or with Caps Lock without.

        ``repeats``: how often a key that is held down says so.
        """
        for key in keys:
            code = CODES.get(key, ord(key[0].upper()))
            options: dict[str, Any] = {"key": key, "windowsVirtualKeyCode": code}
            letter = len(key) == 1
            options["modifiers"] = 8 if letter and key.isupper() != caps_lock else 0
            text = {"text": key} if letter else {}
            for i in range(1 + repeats):
                held = {"autoRepeat": i > 0}
                self.call("Input.dispatchKeyEvent", type="keyDown", **options, **text, **held)
            self.call("Input.dispatchKeyEvent", type="keyUp", **options)

    def problems(self) -> list[str]:
        """Errors the page ran into, and what it asked of anything but itself."""
        self.evaluate("0")  # what is said so far has arrived
        found = []
        for event in self.events:
            method, params = event.get("method"), event.get("params", {})
            if method == "Runtime.exceptionThrown":
                found.append(str(params["exceptionDetails"]))
            elif method == "Log.entryAdded" and params["entry"]["level"] == "error":
                found.append(params["entry"]["text"])
            elif method == "Network.requestWillBeSent":
                url = params["request"]["url"]
                found += [url] if not url.startswith(("file:", "data:", "blob:", "about:")) else []
        return found

    def screenshot(self, path: Path) -> None:
        shot = self.call("Page.captureScreenshot", format="png")
        path.write_bytes(base64.b64decode(shot["data"]))
